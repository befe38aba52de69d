// The list of services: of which owners, what the search leaves, and how those are that are in sight.

import { get, listResources } from "./api.js";
import { at, brief, count, make, put, tell } from "./dom.js";
import { badges } from "./health.js";

const FRESH = 15000; // ms for which what is known of a service in sight is shown without asking again
const AT_ONCE = 3; // questions; a browser has six connections to a node, and the watch is one
const ALL = "";

export class Services {
  #rows = new Map(); // by resource id: the listed resource, its item, and what is known of its records
  #owners = new Map(); // by peer id: the word for it
  #asked = new Set(); // owners that somebody searched for
  #asking = 0;
  #chosen = "";
  #filter = "";
  #onFailure;
  #sight;

  constructor(onFailure) {
    this.#onFailure = onFailure;
    this.#sight = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const row = this.#rows.get(target.dataset.id);
        if (row) {
          row.isInSight = isIntersecting;
        }
      }
      this.look();
    });
    at("owner").addEventListener("change", () => this.#sift());
    at("with-removed").addEventListener("change", () => this.#sift());
  }

  /** The resource of that label or name in the list; undefined where there is none. */
  find(text) {
    return [...this.#rows.values()].map((row) => row.listed).find((each) => each.label === text || each.name === text);
  }

  /** Takes the owners that the node has words for; true where one is new. */
  takeOwners(owners) {
    let isNew = false;
    for (const { name, peer_id: peerId } of owners) {
      if (!this.#owners.has(peerId)) {
        this.#owners.set(peerId, name);
        isNew = true;
      }
    }
    if (isNew) {
      this.#showOwners();
    }
    return isNew;
  }

  /** Lists an owner's resources from now on, too. */
  async addOwner(peerId) {
    this.#asked.add(peerId);
    if (this.#owners.has(peerId)) {
      return;
    }
    await this.#list(peerId);
    this.#owners.set(peerId, peerId);
    this.#showOwners();
  }

  /** Lists all owners' resources anew. */
  async load() {
    for (const peerId of [...this.#owners.keys()]) {
      try {
        await this.#list(peerId);
      } catch (error) {
        this.#onFailure(error);
      }
    }
    if (!this.#rows.size) {
      this.#sift();
    }
  }

  /** A resource that somebody opened belongs to the list. */
  add(listed) {
    if (!this.#rows.has(listed.resource_id)) {
      this.#take([listed]);
    }
  }

  choose(resourceId) {
    this.#chosen = resourceId;
    for (const row of this.#rows.values()) {
      this.#mark(row);
    }
  }

  filter(text) {
    this.#filter = text.trim().toLowerCase();
    this.#sift();
  }

  /** Takes how a resource's records are. */
  know(resourceId, entries) {
    const row = this.#rows.get(resourceId);
    if (row) {
      row.knownAt = performance.now();
      put(row.health, ...badges(entries));
    }
  }

  /** Has all that is in sight asked for anew. */
  spoil() {
    for (const row of this.#rows.values()) {
      row.knownAt = -Infinity;
    }
    this.look();
  }

  /** Asks for what is in sight and not known, or not for long enough. */
  look() {
    const old = performance.now() - FRESH;
    for (const row of this.#rows.values()) {
      if (this.#asking >= AT_ONCE || document.hidden) {
        return;
      }
      if (row.isInSight && !row.isAsked && row.knownAt < old && row.listed.standing !== "removed") {
        this.#ask(row);
      }
    }
  }

  async #ask(row) {
    row.isAsked = true;
    this.#asking += 1;
    try {
      this.know(row.listed.resource_id, await get(["resources", row.listed.resource_id, "records"], { all: true }));
    } catch (error) {
      row.knownAt = performance.now();
      put(row.health, make("span", { class: "quiet" }, error.code === "key-not-exists" ? "not there" : "no answer"));
      if (error.status === 401) {
        this.#onFailure(error);
      }
    } finally {
      row.isAsked = false;
      this.#asking -= 1;
    }
    this.look();
  }

  async #list(peerId) {
    const seen = new Set();
    await listResources(peerId, (page) => {
      page.forEach((listed) => seen.add(listed.resource_id));
      this.#take(page);
    });
    for (const [resourceId, { listed, item }] of this.#rows) {
      if (listed.owner_peer_id === peerId && listed.isListed && !seen.has(resourceId)) {
        this.#sight.unobserve(item);
        item.remove();
        this.#rows.delete(resourceId);
      }
    }
    this.#sift();
  }

  #take(page) {
    const fragment = document.createDocumentFragment();
    for (const listed of page) {
      const row = this.#rows.get(listed.resource_id);
      if (row) {
        row.listed = { ...listed, isListed: true };
        this.#showStanding(row);
      } else {
        fragment.append(this.#newRow({ isListed: true, ...listed }));
      }
    }
    at("services-list").append(fragment);
    this.#sift();
  }

  #newRow(listed) {
    const owner = listed.name.slice(listed.label.length + 1);
    const link = make("a", { href: `#/${encodeURIComponent(listed.name)}`, class: "name" },
      make("bdi", {}, listed.label || "(no label)"), make("span", { class: "owner" }, `@${brief(owner)}`));
    const standing = make("span", { class: "standing" });
    const health = make("span", { class: "healths" });
    const item = make("li", {}, link, standing, health);
    item.dataset.id = listed.resource_id;
    const row = { listed, item, link, standing, health, text: listed.name.toLowerCase(), knownAt: -Infinity };
    this.#rows.set(listed.resource_id, row);
    this.#showStanding(row);
    this.#mark(row);
    this.#sight.observe(item);
    return item;
  }

  #showStanding(row) {
    tell(row.standing, row.listed.standing === "live" ? "" : row.listed.standing);
  }

  #mark(row) {
    if (row.listed.resource_id === this.#chosen) {
      row.link.setAttribute("aria-current", "true");
    } else {
      row.link.removeAttribute("aria-current");
    }
  }

  #sift() {
    const owner = at("owner").value;
    const withRemoved = at("with-removed").checked;
    let left = 0;
    for (const row of this.#rows.values()) {
      const isLeft = (owner === ALL || row.listed.owner_peer_id === owner)
        && (withRemoved || row.listed.standing !== "removed")
        && (!this.#filter || row.text.includes(this.#filter) || row.listed.resource_id.toLowerCase() === this.#filter);
      row.item.hidden = !isLeft;
      left += isLeft;
    }
    tell(at("services-count"), left ? count(left, "service") : "no services");
  }

  #showOwners() {
    const select = at("owner");
    const now = select.value;
    const options = [...this.#owners].map(([peerId, name]) =>
      make("option", { value: peerId }, name === peerId ? brief(peerId) : name));
    put(select, make("option", { value: ALL }, "all that are known"), ...options);
    select.value = now;
  }
}
