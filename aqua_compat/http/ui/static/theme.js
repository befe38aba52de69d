// Light or dark: as the system says, until somebody chooses.

import { at, tell } from "./dom.js";

const KEPT = "aqua-registry.theme";
const DARK = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : DARK.matches;
}

function show() {
  tell(at("theme"), isDark() ? "Light" : "Dark");
  at("theme").setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
}

/** Takes what was chosen before, and the switch. */
export function startTheme() {
  const kept = localStorage.getItem(KEPT);
  if (kept === "dark" || kept === "light") {
    document.documentElement.dataset.theme = kept;
  }
  at("theme").addEventListener("click", () => {
    const next = isDark() ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem(KEPT, next);
    show();
  });
  DARK.addEventListener("change", show);
  show();
}
