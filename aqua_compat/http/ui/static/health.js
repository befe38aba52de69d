// How records are: their states, and the badges that show them.

import { make } from "./dom.js";

/** The states, worst first, each with a sign: colour alone tells nobody who doesn't see it. */
export const STATES = { down: "✖", critical: "✖", unknown: "?", warning: "▲", passing: "●" };

/** The state of one entry of what `records?all=true` gives. */
export function stateOf(health) {
  if (!health.up) {
    return "down";
  }
  return Object.hasOwn(STATES, health.state) ? health.state : "unknown";
}

/** How one instance of a record is: its `state`, and its `note` if it isn't the record's; null where nothing says so, or its host isn't there. */
export function ofInstance(health, instance) {
  if (!health.up || !health.instances || !Object.hasOwn(health.instances, instance)) {
    return null;
  }
  const { state, note } = health.instances[instance];
  return { state: Object.hasOwn(STATES, state) ? state : "unknown", note: note === health.note ? "" : note };
}

/** A state as a badge; `number` where there are several. */
export function badge(state, number = null) {
  const sign = make("span", { "aria-hidden": "true" }, STATES[state] ?? "?");
  return make("span", { class: `badge ${state}` }, sign, number === null ? ` ${state}` : ` ${number} ${state}`);
}

/** The badges of a resource: how many records are in each state. */
export function badges(entries) {
  if (!entries.length) {
    return [make("span", { class: "quiet" }, "nothing registered")];
  }
  const numbers = new Map();
  for (const { health } of entries) {
    const state = stateOf(health);
    numbers.set(state, (numbers.get(state) ?? 0) + 1);
  }
  return Object.keys(STATES).filter((state) => numbers.has(state)).map((state) => badge(state, numbers.get(state)));
}

/** What tells a record from the others of its resource. */
export function slotOf(record) {
  return `${record.metadata.issued_by} ${record.metadata.peer_id}`;
}
