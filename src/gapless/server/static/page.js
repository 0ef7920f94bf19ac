"use strict";
// Search: one query at a time. What was asked is written into the fragment of the address, which no server is sent.
(() => {
  const { at, answerOf, reasonOf, cardOf, collection, parts, address, selection, theme, language, say: t } = gapless;
  const { maxUpload, maxHits } = collection;
  const PAGE_OF_HITS = 24;
  const [form, words, status, results, further, welcome] = ["form", "words", "status", "results", "further", "welcome"].map(at);
  const [modality, where, hybrid, balanced] = ["modality", "where", "hybrid", "balanced"].map(at);
  const labels = [...document.querySelectorAll("select.label")];
  const fileInputs = [...document.querySelectorAll("input[type=file]")];

  let count = PAGE_OF_HITS, latest = 0, shown = null; // what was found, and what was asked for it
  // Back goes through the queries of this visit; this list has their files, which are not in the address.
  const visited = [];

  const say = (text, isError = false) => {
    status.textContent = text;
    status.classList.toggle("error", isError);
  };
  const showFilters = () => {
    const set = [modality, ...labels].filter((select) => select.classList.toggle("set", Boolean(select.value)));
    if (balanced) {
      balanced.disabled = Boolean(modality.value); // one kind alone has nothing to be balanced against
      at("balanced-switch").classList.toggle("off", balanced.disabled);
    }
    at("clear").hidden = !(set.length || where.value || (hybrid && hybrid.checked));
  };

  const query = () => {
    const asked = { k: count, labels: {}, ...parts.query() };
    if (modality.value) asked.modality = modality.value;
    for (const select of labels) if (select.value) asked.labels[select.dataset.label] = select.value;
    if (where.value.trim()) asked.where = where.value.trim();
    if (hybrid && hybrid.checked && asked.text) asked.hybrid = true;
    if (balanced && !balanced.checked) asked.raw = true;
    return asked;
  };
  const send = (asked) => {
    const files = parts.files();
    if (!files.length) {
      return fetch("/api/search", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked) });
    }
    const body = new FormData();
    for (const [name, file] of files) body.append(name, file, "file"); // its name stays here
    body.append("query", JSON.stringify(asked));
    return fetch("/api/search/upload", { method: "POST", body });
  };

  const search = async ({ remember = true } = {}) => {
    parts.render();
    showFilters();
    if (parts.isEmpty()) {
      if (shown) clearResults();
      say(status.dataset.empty ? t(status.dataset.empty) : "");
      writeAddress();
      return;
    }
    const asked = query();
    if (remember) {
      visited.push({ state: parts.state(), words: words ? words.value : "", count });
      history.pushState({ visit: visited.length - 1 }, "", address.encode(state("search")));
    } else {
      writeAddress();
    }
    const number = ++latest;
    results.classList.add("stale");
    results.setAttribute("aria-busy", "true");
    try {
      const answer = await answerOf(await send(asked));
      if (number === latest) show(answer, asked);
    } catch (error) {
      if (number === latest) {
        clearResults();
        say(reasonOf(error), true);
      }
    } finally {
      if (number === latest) {
        results.classList.remove("stale");
        results.removeAttribute("aria-busy");
      }
    }
  };
  const clearResults = () => {
    results.replaceChildren();
    further.hidden = true;
    shown = null;
    welcome.hidden = false;
  };

  const show = (answer, asked) => {
    shown = [answer, asked];
    welcome.hidden = true;
    const { hits } = answer;
    const isBalanced = !asked.hybrid && hits.some((hit) => hit.balanced !== null);
    const scores = t(asked.hybrid ? "score.fused" : isBalanced ? "score.balanced" : "score.cosine");
    const found = hits.length ? t("results.found", { count: hits.length, score: scores, time: answer.milliseconds.toFixed(0) }) : t("results.none");
    const { cut } = answer;
    say(cut ? `${found} · ${t("results.cut", cut)}` : found);
    results.replaceChildren(...hits.map((hit) => cardOf(hit, asked.hybrid ? 4 : 3, isBalanced)));
    further.hidden = hits.length < count || count >= maxHits;
  };

  gapless.findLike = (hit) => {
    parts.setLike(hit);
    count = PAGE_OF_HITS;
    if (words) words.value = "";
    showTab("search");
    scrollTo({ top: 0 });
    search().then(() => results.focus({ preventScroll: true }));
  };
  const takeFiles = (name, files) => {
    if (!files.length || !name) return;
    const size = files.reduce((sum, file) => sum + file.size, 0);
    if (size > maxUpload) {
      say(t("search.too-large", { modality: name, size: (size / 1e6).toFixed(0), most: maxUpload / 1e6 }), true);
      return;
    }
    parts.put(name, { files: collection.several.includes(name) ? files : files.slice(0, 1) });
    count = PAGE_OF_HITS;
    showTab("search");
    search();
  };

  // What is shown, for the address.
  const shownTab = () => (at("map").hidden ? "search" : "map");
  const state = (view = shownTab()) => ({
    ...parts.written(), view, q: words ? words.value.trim() : "", k: count === PAGE_OF_HITS ? 0 : count,
    modality: modality.value, where: where.value.trim(), hybrid: Boolean(hybrid && hybrid.checked), raw: Boolean(balanced && !balanced.checked),
    labels: Object.fromEntries(labels.filter((select) => select.value).map((select) => [select.dataset.label, select.value])),
    selected: selection.ids(), theme: theme.get() === "auto" ? "" : theme.get(), lang: document.documentElement.lang === "en" ? "" : document.documentElement.lang,
  });
  const writeAddress = () => history.replaceState(history.state, "", address.encode(state()));
  const restoreFilters = (given) => {
    for (const control of [modality, where]) control.value = given[control.id];
    for (const select of labels) select.value = given.labels[select.dataset.label] || "";
    for (const select of [modality, ...labels]) if (select.selectedIndex < 0) select.value = ""; // no such value here
    if (hybrid) hybrid.checked = given.hybrid;
    if (balanced) balanced.checked = !given.raw;
  };
  const restoreLike = async (row) => {
    const found = await answerOf(await fetch(`/api/case?id=${encodeURIComponent(row.slice(0, row.lastIndexOf("/")))}`)).catch(() => ({ rows: [] }));
    const hit = found.rows.find((one) => one.row === row);
    if (hit) parts.setLike(hit);
    return Boolean(hit);
  };
  // Everything that an address says, as when a link is opened.
  const restore = async () => {
    const given = address.decode(location.hash);
    restoreFilters(given);
    if (given.theme !== state().theme) theme.set(given.theme);
    if (given.lang) language.set(given.lang);
    selection.set(given.selected);
    parts.read(given.parts, given.weights);
    if (words) words.value = given.q;
    count = Math.min(given.k || PAGE_OF_HITS, maxHits);
    showTab(given.view);
    const hasLike = !given.like || await restoreLike(given.like);
    await search({ remember: false });
    if (!hasLike) say(t("error.like"), true);
  };

  // Tabs: arrows move between them, as in every tab list.
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const showTab = (name, focus = false) => {
    for (const tab of tabs) {
      const chosen = tab.id === `tab-${name}`;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      at(tab.getAttribute("aria-controls")).hidden = !chosen;
      if (chosen && focus) tab.focus();
    }
    document.dispatchEvent(new CustomEvent("gapless:tab", { detail: name }));
  };
  const nameOf = (tab) => tab.getAttribute("aria-controls");
  const goTo = (tab, focus) => {
    history.pushState({ visit: visited.length - 1 }, "", address.encode(state(nameOf(tab))));
    showTab(nameOf(tab), focus);
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => goTo(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) goTo(tabs[(index + step + tabs.length) % tabs.length], true);
    });
  });
  addEventListener("popstate", (event) => {
    const visit = visited[(event.state || {}).visit];
    if (!visit) {
      restore();
      return;
    }
    const given = address.decode(location.hash);
    restoreFilters(given);
    showTab(given.view);
    parts.restore(visit.state);
    count = visit.count;
    if (words) words.value = visit.words;
    search({ remember: false });
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (parts.hasWords()) parts.dropLike();
    count = PAGE_OF_HITS;
    search();
  });
  if (words) words.addEventListener("input", parts.render);
  for (const input of fileInputs) input.addEventListener("change", () => {
    takeFiles(input.dataset.modality, [...input.files]);
    input.value = "";
  });
  if (fileInputs.length) {
    addEventListener("paste", (event) => {
      const pasted = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
      if (!pasted) return;
      event.preventDefault();
      takeFiles(parts.modalityOf(pasted), [pasted]);
    });
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    addEventListener("drop", (event) => { // on a button of a modality: to it; else to whichever reads such a file
      event.preventDefault();
      document.body.classList.remove("dropping");
      const over = event.target instanceof Element ? event.target.closest("label[data-modality]") : null;
      const byModality = new Map();
      for (const file of event.dataTransfer.files) {
        const name = over ? over.dataset.modality : parts.modalityOf(file);
        byModality.set(name, [...(byModality.get(name) || []), file]);
      }
      byModality.forEach((files, name) => takeFiles(name, files));
    });
  }
  parts.onChange((options) => {
    count = PAGE_OF_HITS;
    search(options);
  });
  const refine = () => {
    count = PAGE_OF_HITS;
    search({ remember: false });
  };
  for (const control of [modality, where, hybrid, balanced, ...labels]) if (control) control.addEventListener("change", refine);
  at("clear").addEventListener("click", () => {
    for (const control of [modality, where, ...labels]) control.value = "";
    if (hybrid) hybrid.checked = false;
    refine();
  });
  further.addEventListener("click", async () => {
    const before = results.children.length;
    count = Math.min(count * 2, maxHits);
    await search({ remember: false });
    const next = results.children[before];
    if (next) next.querySelector("button").focus();
  });

  for (const name of ["selection", "theme", "language"]) document.addEventListener(`gapless:${name}`, writeAddress);
  document.addEventListener("gapless:language", () => {
    parts.redraw();
    if (shown) show(...shown);
    else if (status.textContent && !status.classList.contains("error")) say(t(status.dataset.empty));
  });
  at("skip").addEventListener("click", () => results.focus());
  gapless.showTab = showTab;
  history.replaceState({ visit: -1 }, "");
  addEventListener("DOMContentLoaded", () => {
    if (location.hash) restore();
    else showTab("search");
    // On a phone the focus would open the keyboard over the page.
    if (words && !location.hash && matchMedia("(hover: hover)").matches) words.focus();
  });
})();
