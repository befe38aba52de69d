// One resource: its instances and how they are, who keeps it, who may register, what happened, and its changes live.

import { Failed, get, watch } from "./api.js";
import { at, brief, count, id, lasting, make, moment, pairs, put, shown, tell } from "./dom.js";
import { badge, badges, ofInstance, slotOf, stateOf } from "./health.js";

const MOST_RECORDS = 200;
const MOST_EVENTS = 100;
const MOST_CHANGES = 50;
const SETTLING = 400; // ms after a change, in which others may follow, before all is read again

function section(title, name) {
  const body = make("div", { id: `${name}-body` }, make("p", { class: "quiet" }, "loading"));
  return [make("h3", { id: `${name}-title` }, title), body];
}

function instanceText(instance) {
  const place = instance.address
    ? `${instance.address.includes(":") ? `[${instance.address}]` : instance.address}${instance.port ? `:${instance.port}` : ""}`
    : "through its host";
  return instance.protocol ? `${instance.protocol}://${place}` : place;
}

function instanceItem(instance, health) {
  const facts = [];
  if (instance.tags.length) {
    facts.push(["tags", instance.tags.join(", ")]);
  }
  for (const [name, value] of Object.entries(instance.metadata)) {
    facts.push([name, value]);
  }
  if (instance.weight !== 1) {
    facts.push(["weight", instance.weight]);
  }
  return make("li", {}, make("bdi", { class: "strong" }, instance.id), " ", make("bdi", {}, instanceText(instance)),
    ...(health ? [" ", badge(health.state)] : []), ...(health?.note ? [" ", make("bdi", { class: "note" }, health.note)] : []),
    facts.length ? make("dl", { class: "facts" }, pairs(facts)) : null);
}

function recordItem({ record, health }, own) {
  const { metadata, instances } = record;
  const state = stateOf(health);
  const now = Date.now() / 1000;
  const since = state === "down" ? health.up_or_down_for !== null && now - health.up_or_down_for : health.since;
  const head = make("p", { class: "head" }, badge(state),
    since ? make("span", { class: "quiet", "data-since": Math.round(since) }, `for ${lasting(now - since)}`) : null,
    health.note ? make("bdi", { class: "note" }, health.note) : null);
  const host = [id(metadata.peer_id), metadata.peer_id === own ? " (this node)" : ""];
  const facts = [["host", host]];
  if (metadata.issued_by !== metadata.peer_id) {
    facts.push(["issuer", [id(metadata.issued_by)]]);
  }
  if (metadata.service_id?.length) {
    facts.push(["service", metadata.service_id.join(", ")]);
  }
  if (metadata.relay_id?.length) {
    facts.push(["relay", metadata.relay_id.map(id)]);
  }
  if (health.stopped) {
    facts.push(["stopped", "by its own word"]);
  } else if (health.accusers.length) {
    facts.push(["witnesses", health.accusers.map(brief).join(", ")]);
  }
  const isOneOfSeveral = instances.length > 1; // a single one is as its record
  const places = instances.length
    ? make("ul", { class: "plain instances" }, instances.map((instance) =>
      instanceItem(instance, isOneOfSeveral ? ofInstance(health, instance.id) : null)))
    : make("p", { class: "value" }, make("bdi", {}, metadata.value || "(no value)"));
  return make("li", { class: `record ${state}`, "data-slot": slotOf(record) }, head, places,
    make("dl", { class: "facts" }, pairs(facts)));
}

function policyFacts(policy) {
  if (policy === null) {
    return [["who may register", "anybody: it has no policy"]];
  }
  if (!policy.known) {
    return [["revision", policy.revision], ["who may register", "its policy is of a later version than this node's"]];
  }
  const ids = (peers) => (peers.length ? peers.flatMap((peer) => [id(peer), " "]) : "nobody");
  const denied = policy.deny.flatMap((each) => [id(each.issuer), each.until ? " until " : " ",
    each.until ? moment(each.until) : "", " "]);
  return [
    ["who may register", policy.open ? "anybody who isn't denied" : "who is allowed, or has a certificate"],
    ["allowed", ids(policy.allow)],
    ["roots of certificates", ids(policy.roots)],
    ["denied", denied.length ? denied : "nobody"],
    ["hosts", policy.hosts.length ? ids(policy.hosts) : "any"],
    ["revision", policy.revision],
  ];
}

function historyItem(event) {
  const who = event.peer_id ? [" ", make("span", { class: "quiet" }, `host ${brief(event.peer_id)}`)] : [];
  return make("li", {}, moment(event.time), " ", make("bdi", { class: "strong" }, event.what), ...who,
    event.detail ? [" ", make("bdi", {}, event.detail)] : null);
}

/** What a change of health says of single instances: those that are otherwise than before. */
function changedInstances(before, health) {
  const names = Object.keys(health.instances ?? {});
  return names.length < 2 ? [] : names.flatMap((name) => {
    const now = ofInstance(health, name);
    const earlier = before ? ofInstance(before, name)?.state : stateOf(health);
    return now && now.state !== earlier ? [`${shown(name)} ${now.state}${now.note ? ` (${shown(now.note)})` : ""}`] : [];
  });
}

export class ResourceView {
  #stop = new AbortController();
  #entries = [];
  #timer = 0;
  #own = "";
  #onRecords;
  #onChange;

  /** `onRecords(id, entries)`: how its records are; `onChange()`: something changed. */
  constructor(onRecords, onChange) {
    this.#onRecords = onRecords;
    this.#onChange = onChange;
  }

  /** The name or id that is shown; empty for none. */
  name = "";
  /** Its id, once it is known. */
  resourceId = "";
  /** Its label, once it is known. */
  label = "";

  /** Shows another resource; resolves with its key, or null where there is none, or another was chosen meanwhile. */
  async open(name, own) {
    this.close();
    const { signal } = this.#stop;
    this.name = name;
    this.#own = own;
    tell(at("resource-title"), name);
    put(at("resource-body"),
      make("p", { id: "resource-facts", class: "quiet" }, "loading"),
      ...section("Instances", "records"), ...section("Kept by", "keepers"), ...section("Policy", "policy"),
      ...section("History on this node", "history"));
    tell(at("changes-state"), "connecting");
    try {
      const key = await get(["resources", name], {}, signal);
      this.resourceId = key.id;
      this.label = key.label;
      tell(at("resource-title"), key.name);
      put(at("resource-facts"), make("span", {}, "id "), id(key.id), make("span", {}, " owner "), id(key.owner_peer_id),
        make("span", {}, " renewed "), moment(key.timestamp_created));
      watch(key.id, (event) => this.#take(event), (isOpen, error) => this.#tellState(isOpen, error), signal);
      await this.refresh();
      return signal.aborted ? null : key;
    } catch (error) {
      if (signal.aborted) {
        return null;
      }
      put(at("resource-body"), make("p", { class: "problem", role: "alert" }, error.message));
      tell(at("changes-state"), "");
      if (error instanceof Failed && error.status === 401) {
        throw error;
      }
      return null;
    }
  }

  /** Shows none. */
  close() {
    this.#stop.abort();
    this.#stop = new AbortController();
    clearTimeout(this.#timer);
    this.#entries = [];
    this.name = this.resourceId = this.label = "";
    at("changes-list").replaceChildren();
    tell(at("changes-state"), "Choose a resource to watch it.");
    tell(at("resource-title"), "No resource is chosen");
    put(at("resource-body"), make("p", { class: "quiet" }, "Choose a service, or open one by its name or id."));
  }

  /** Reads everything again. */
  async refresh() {
    if (!this.resourceId) {
      return;
    }
    const { signal } = this.#stop;
    const of = (part, parameters) => get(["resources", this.resourceId, part], parameters, signal);
    await Promise.all([
      this.#part("records", of("records", { all: true }), (entries) => this.#showRecords(entries), signal),
      this.#part("policy", of("policy", {}), ({ policy }) => [make("dl", { class: "facts" }, pairs(policyFacts(policy)))],
        signal),
      this.#part("history", of("history", {}), (events) => this.#historyOf(events), signal),
    ]);
  }

  /** Takes the members that keep it, as the view of the network has them. */
  takeKeepers(keepers) {
    const body = at("keepers-body");
    if (body) {
      put(body, keepers.length
        ? make("ol", { class: "plain" }, keepers.map((keeper) =>
          make("li", {}, id(keeper), keeper === this.#own ? " (this node)" : null)))
        : make("p", { class: "quiet" }, "nobody answered"));
    }
  }

  async #part(name, asked, render, signal) {
    try {
      const children = render(await asked);
      if (!signal.aborted) {
        put(at(`${name}-body`), ...children);
      }
    } catch (error) {
      if (!signal.aborted) {
        put(at(`${name}-body`), make("p", { class: "problem" }, error.message));
      }
    }
  }

  #showRecords(entries) {
    this.#entries = entries;
    this.#onRecords(this.resourceId, entries);
    const items = entries.slice(0, MOST_RECORDS).map((entry) => recordItem(entry, this.#own));
    const more = entries.length - items.length;
    return [
      make("p", { class: "healths" }, badges(entries)),
      make("ul", { class: "plain records" }, items),
      ...(more > 0 ? [make("p", { class: "quiet" }, `and ${more} more`)] : []),
    ];
  }

  #historyOf(events) {
    const items = [...events].reverse().slice(0, MOST_EVENTS).map(historyItem);
    return items.length
      ? [make("ol", { class: "plain history", tabindex: 0, "aria-labelledby": "history-title" }, items)]
      : [make("p", { class: "quiet" }, "this node doesn't keep it, and saw nothing happen")];
  }

  #take(event) {
    if (event.event === "snapshot") {
      this.#tellChange("snapshot", count(event.records.length, "record that works", "records that work"));
    } else {
      const slot = slotOf(event.record);
      const before = this.#entries.find(({ record }) => slotOf(record) === slot)?.health;
      const changed = event.event === "health" ? changedInstances(before, event.health) : [];
      this.#apply(event);
      const { metadata } = event.record;
      const why = [event.reason, event.health?.note].filter(Boolean).map(shown).concat(changed).join(", ");
      this.#tellChange(event.event === "health" ? event.health.state : event.event,
        `host ${brief(metadata.peer_id)}${why ? `: ${why}` : ""}`);
    }
    this.#onChange();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.refresh(), SETTLING);
  }

  /** Shows at once what an event tells; all is read again soon after. */
  #apply(event) {
    if (!event.health || !this.#entries.length) {
      return;
    }
    const slot = slotOf(event.record);
    const entries = this.#entries.map((entry) =>
      slotOf(entry.record) === slot ? { record: entry.record, health: event.health } : entry);
    put(at("records-body"), ...this.#showRecords(entries));
  }

  #tellChange(kind, text) {
    const list = at("changes-list");
    const now = new Date();
    list.prepend(make("li", { class: kind },
      make("time", { datetime: now.toISOString() }, now.toLocaleTimeString()), " ",
      make("span", { class: "strong" }, kind), " ", make("bdi", {}, text)));
    while (list.children.length > MOST_CHANGES) {
      list.lastChild.remove();
    }
  }

  #tellState(isOpen, error) {
    tell(at("changes-state"), isOpen ? `watching ${this.label}` : error ? `not watching: ${error.message}` : "connecting again");
  }
}
