// The page: asks the node how everything is, and again from time to time; a chosen resource is watched.

import { get, useToken } from "./api.js";
import { age, at, tell } from "./dom.js";
import { showStatus } from "./node.js";
import { ResourceView } from "./resource.js";
import { drawNetwork } from "./ring.js";
import { Services } from "./services.js";
import { startTheme } from "./theme.js";

const NODE_EVERY = 5000; // ms
const LIST_EVERY = 20000; // ms
const PEER_ID = /^(12D3KooW|16Uiu2|Qm)[1-9A-HJ-NP-Za-km-z]{40,60}$/;

let isLocked = false;
let own = "";
let round = 0;
const services = new Services(fail);
const resource = new ResourceView((id, entries) => services.know(id, entries), () => {
  services.spoil();
  lookAtNode();
});

function notice(text) {
  at("notice").hidden = !text;
  tell(at("notice"), text);
}

function fail(error) {
  if (error.status === 401) {
    isLocked = true;
    const isShown = !at("token").hidden;
    at("token").hidden = false;
    tell(at("connection"), "a token is needed");
    if (!isShown) {
      at("token-value").focus();
    }
  } else {
    notice(error.message);
  }
}

async function lookAtNetwork() {
  const mine = ++round;
  const { name } = resource;
  const isFound = Boolean(resource.resourceId);
  const view = await get(["network"], isFound ? { resource: resource.resourceId } : {});
  if (mine !== round || name !== resource.name) {
    return; // a later question was asked
  }
  own = view.peer_id;
  drawNetwork(view, resource.label || name);
  if (view.resource) {
    resource.takeKeepers(view.resource.keepers);
  }
  if (services.takeOwners(view.owners)) {
    await services.load();
  }
}

async function lookAtNode() {
  if (isLocked || document.hidden) {
    return;
  }
  try {
    const [status] = await Promise.all([get(["status"]), lookAtNetwork()]);
    showStatus(status);
    tell(at("connection"), "connected");
    document.body.dataset.connected = "true";
  } catch (error) {
    document.body.dataset.connected = "false";
    if (error.status) {
      fail(error);
    } else {
      tell(at("connection"), "the node doesn't answer");
    }
  }
}

async function route() {
  const hash = location.hash;
  let name = "";
  notice("");
  try {
    name = hash.startsWith("#/") ? decodeURIComponent(hash.slice(2)) : "";
  } catch {
    notice("The address of this page names nothing.");
  }
  if (!name) {
    document.title = "aqua-registry";
    resource.close();
    services.choose("");
    return;
  }
  try {
    const key = await resource.open(name, own);
    if (key) {
      services.add({ resource_id: key.id, label: key.label, owner_peer_id: key.owner_peer_id, standing: "live", name: key.name,
        isListed: false });
      services.choose(key.id);
      document.title = `${key.label} · aqua-registry`;
      await lookAtNetwork();
    }
  } catch (error) {
    fail(error);
  }
}

async function search(text) {
  const found = services.find(text);
  if (!text) {
    notice("");
  } else if (found) {
    location.hash = `#/${encodeURIComponent(found.name)}`;
  } else if (PEER_ID.test(text)) {
    try {
      await services.addOwner(text);
      at("query").value = "";
      services.filter("");
      at("owner").value = text;
      at("owner").dispatchEvent(new Event("change"));
      at("owner").focus();
      notice("");
    } catch (error) {
      fail(error);
    }
  } else if (text.includes("@") || text.length >= 32) {
    location.hash = `#/${encodeURIComponent(text)}`;
  } else {
    notice(`No service here is called ${text}. Another owner's is opened as label@owner.`);
  }
}

function start() {
  startTheme();
  at("search").addEventListener("submit", (event) => {
    event.preventDefault();
    search(at("query").value.trim());
  });
  at("query").addEventListener("input", () => services.filter(at("query").value));
  at("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useToken(at("token-value").value.trim());
    at("token-value").value = "";
    at("token").hidden = true;
    isLocked = false;
    begin();
  });
  document.querySelector("[data-skip]").addEventListener("click", (event) => {
    event.preventDefault();
    at("resource-title").focus();
  });
  at("members").addEventListener("toggle", lookAtNode);
  at("node-all").addEventListener("toggle", lookAtNode);
  addEventListener("hashchange", () => {
    route();
    at("resource-title").focus({ preventScroll: matchMedia("(min-width: 60rem)").matches });
  });
  document.addEventListener("visibilitychange", lookAtNode);
  setInterval(lookAtNode, NODE_EVERY);
  setInterval(() => {
    age();
    services.look();
  }, 1000);
  setInterval(() => {
    if (!isLocked && !document.hidden) {
      services.load();
      resource.refresh();
    }
  }, LIST_EVERY);
  begin();
}

async function begin() {
  await lookAtNode();
  if (!isLocked) {
    await route();
  }
}

start();
