// How this node is.

import { at, count, id, lasting, make, pairs, put, size } from "./dom.js";

function figures(value, prefix) {
  if (value === null || typeof value !== "object") {
    return [[prefix, String(value)]];
  }
  return Object.entries(value).flatMap(([name, inner]) => figures(inner, prefix ? `${prefix}.${name}` : name));
}

/** Shows what `status` tells. */
export function showStatus(status) {
  const facts = [
    ["peer", [id(status.peer_id)]],
    ["state", status.ready ? (status.caught_up ? "ready, caught up" : "ready, catching up") : "isolated"],
    ["up for", lasting(status.uptime)],
    ["linked to", count(status.members.length, "member")],
    ["keeps", `${count(status.keys, "resource")}, ${count(status.records, "record")}`],
    ["watched here", count(status.watched, "resource")],
  ];
  if (status.disk) {
    facts.push(["disk", `${size(status.disk.used)} of ${size(status.disk.budget)}${status.disk.is_full ? ", full" : ""}`]);
  }
  if (status.replication) {
    facts.push(["replication", status.replication.settled ? "settled" : "under way"]);
  }
  if (status.overlay) {
    facts.push(["loop's lag", `${(status.overlay.loop_lag_p99 * 1000).toFixed(1)} ms (p99)`]);
  }
  facts.push(["addresses", status.addresses.length ? status.addresses.flatMap((each) => [id(each), " "]) : "none"]);
  put(at("node-facts"), ...pairs(facts));
  if (at("node-all").open) {
    put(at("node-figures"), ...pairs(figures({ ...status, addresses: undefined, members: undefined }, "")
      .map(([name, value]) => [name, [make("bdi", {}, value)]])));
  }
}
