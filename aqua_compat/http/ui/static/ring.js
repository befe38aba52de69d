// Draws the network: members on the ring of the keyspace, this node's links, and who keeps the chosen resource.

import { at, brief, count, draw, make, put, tell } from "./dom.js";

const CENTRE = { x: 240, y: 195 };
const RADIUS = 150;
const LABEL = { height: 14, width: 6.8, longest: 11 }; // of a line and a character, in the picture's units; and characters
const MOST_LABELLED = 40; // members; of more, only those that keep the resource have labels
const MOST_LISTED = 400;

/** The point at a position of the ring, from 0 to 1, clockwise from the top. */
function point(position, radius = RADIUS) {
  const angle = (position - 0.25) * 2 * Math.PI;
  return { x: CENTRE.x + radius * Math.cos(angle), y: CENTRE.y + radius * Math.sin(angle) };
}

const round = (number) => Math.round(number * 10) / 10;

function line(from, to, kind) {
  // Bent towards the centre, the more the longer: lines of a bundle can be told from each other, and from the ring.
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  const share = 0.6 * Math.min(Math.hypot(from.x - to.x, from.y - to.y) / (2 * RADIUS), 1);
  const bend = { x: middle.x + (CENTRE.x - middle.x) * share, y: middle.y + (CENTRE.y - middle.y) * share };
  const path = `M${round(from.x)} ${round(from.y)}Q${round(bend.x)} ${round(bend.y)} ${round(to.x)} ${round(to.y)}`;
  return draw("path", { class: `line ${kind}`, d: path });
}

function dot(where, radius, kind, name) {
  return draw("circle", { class: `dot ${kind}`, cx: round(where.x), cy: round(where.y), r: radius }, draw("title", {}, name));
}

function diamond(where, size, name) {
  const { x, y } = where;
  const points = [[x, y - size], [x + size, y], [x, y + size], [x - size, y]].map((each) => each.map(round).join(" "));
  return draw("polygon", { class: "dot chosen", points: points.join(" ") }, draw("title", {}, name));
}

/** Labels that don't lie on each other; those that come first have the choice. */
class Labels {
  #taken = [];

  /** Keeps labels away from a point. */
  avoid({ x, y }, size) {
    this.#taken.push({ left: x - size, right: x + size, top: y - size, bottom: y + size });
  }

  /** A label outside of the ring, or inside; null where there is no room. */
  make(position, text, kind) {
    const width = text.length * LABEL.width;
    for (const distance of kind === "chosen" ? [35] : [15, -15]) {
      const where = point(position, RADIUS + distance);
      const lean = ((where.x - CENTRE.x) / RADIUS) * Math.sign(distance);
      const anchor = lean > 0.25 ? "start" : lean < -0.25 ? "end" : "middle";
      const left = where.x - { start: 0, middle: width / 2, end: width }[anchor];
      const box = { left, right: left + width, top: where.y - LABEL.height / 2, bottom: where.y + LABEL.height / 2 };
      if (!this.#isTaken(box)) {
        this.#taken.push(box);
        return draw("text", { class: `label ${kind}`, x: round(where.x), y: round(where.y + 4), "text-anchor": anchor }, text);
      }
    }
    return null;
  }

  #isTaken(box) {
    return this.#taken.some((other) =>
      box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom);
  }
}

function kindOf(member, keepers) {
  const kind = !member.up ? "gone" : member.linked ? "linked" : "known";
  return keepers.has(member.peer_id) ? `${kind} keeper` : kind;
}

/** Draws a view of the network, `name` being what the resource in it is called. */
export function drawNetwork(view, name) {
  const keepers = new Set(view.resource?.keepers ?? []);
  const own = point(view.position);
  const lines = [];
  const dots = [];
  const labels = new Labels();
  const texts = [];
  labels.avoid(own, 5);
  if (view.resource) {
    const from = point(view.resource.position, RADIUS + 17);
    labels.avoid(from, 6);
    const places = new Map(view.members.map((member) => [member.peer_id, member.position]));
    places.set(view.peer_id, view.position);
    for (const keeper of keepers) {
      if (places.has(keeper)) {
        lines.push(line(from, point(places.get(keeper)), "keeps"));
      }
    }
    dots.push(diamond(from, 7, name));
    texts.push(labels.make(view.resource.position, name.length > LABEL.longest ? `${name.slice(0, LABEL.longest - 1)}…` : name, "chosen"));
  }
  texts.push(labels.make(view.position, "this node", "own"));
  const isCrowded = view.members.length > MOST_LABELLED;
  const radius = Math.min(Math.max((2.4 * RADIUS) / (view.members.length + 1), 2), 6);
  for (const member of view.members) {
    const where = point(member.position);
    if (member.linked) {
      lines.unshift(line(own, where, "link"));
    }
    dots.push(dot(where, keepers.has(member.peer_id) || !member.up ? Math.max(radius, 4) : radius, kindOf(member, keepers), member.peer_id));
  }
  const labelled = view.members.filter((member) => !isCrowded || keepers.has(member.peer_id));
  labelled.sort((one, other) => keepers.has(other.peer_id) - keepers.has(one.peer_id));
  for (const member of labelled) {
    texts.push(labels.make(member.position, brief(member.peer_id), kindOf(member, keepers)));
  }
  dots.push(dot(own, 8, keepers.has(view.peer_id) ? "own keeper" : "own", `this node, ${view.peer_id}`));
  const circle = draw("circle", { class: "ring", cx: CENTRE.x, cy: CENTRE.y, r: RADIUS });
  const ring = at("ring");
  ring.classList.toggle("crowded", isCrowded);
  const fixed = [...ring.children].slice(0, 2);
  ring.replaceChildren(...fixed, circle, ...lines, ...dots, ...texts.filter((text) => text !== null));
  tellNetwork(view, keepers, name);
}

function tellNetwork(view, keepers, name) {
  const linked = view.members.filter((member) => member.linked).length;
  const gone = view.members.filter((member) => !member.up).length;
  let text = `${count(view.members.length, "other member")}, ${linked} linked${gone ? `, ${gone} down` : ""}`;
  if (view.resource) {
    text += `; ${name} is kept by ${keepers.size}${keepers.has(view.peer_id) ? ", this node among them" : ""}`;
  }
  tell(at("network-text"), text);
  tell(at("ring-text"), text);
  if (!at("members").open) {
    return;
  }
  const items = view.members.slice(0, MOST_LISTED).map((member) => {
    const words = [member.up ? (member.linked ? "linked" : "known") : "down"];
    if (member.neighbour) {
      words.push("neighbour");
    }
    if (keepers.has(member.peer_id)) {
      words.push(`keeps ${name}`);
    }
    return make("li", {}, make("code", { class: "id" }, member.peer_id), ` ${words.join(", ")}`);
  });
  put(at("members-list"), items);
}
