"use strict";
// Search: one query at a time. Nothing that was asked is written anywhere: not into the address, not into storage.
(() => {
  const { at, answerOf, reasonOf, cardOf, collection, parts } = gapless;
  const { maxUpload, maxHits } = collection;
  const PAGE_OF_HITS = 24;
  const [form, words, status, results, further, welcome] = ["form", "words", "status", "results", "further", "welcome"].map(at);
  const [modality, where, hybrid, balanced] = ["modality", "where", "hybrid", "balanced"].map(at);
  const labels = [...document.querySelectorAll("select.label")];
  const fileInputs = [...document.querySelectorAll("input[type=file]")];

  let count = PAGE_OF_HITS, latest = 0, shown = false;
  // The browser's Back goes through the queries of this visit; they live in this list only.
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
      say(status.dataset.empty || "");
      return;
    }
    const asked = query();
    if (remember) {
      visited.push({ state: parts.state(), words: words ? words.value : "", count });
      history.pushState({ visit: visited.length - 1 }, "", addressOf("search"));
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
    shown = false;
    welcome.hidden = false;
  };

  const show = (answer, asked) => {
    shown = true;
    welcome.hidden = true;
    const { hits } = answer;
    const isBalanced = !asked.hybrid && hits.some((hit) => hit.balanced !== null);
    const scores = asked.hybrid ? "fused score" : isBalanced ? "balanced score" : "cosine";
    const found = hits.length ? `${hits.length} nearest, by ${scores} · ${answer.milliseconds.toFixed(0)} ms` : "Nothing passes these filters.";
    const { cut } = answer;
    say(cut ? `${found} · Your words are ${cut.tokens} tokens long: the model read the first ${cut.read} and left out the rest.` : found);
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
      say(`This ${name} has ${(size / 1e6).toFixed(0)} MB; ${maxUpload / 1e6} MB is the most.`, true);
      return;
    }
    parts.put(name, { files: collection.several.includes(name) ? files : files.slice(0, 1) });
    count = PAGE_OF_HITS;
    showTab("search");
    search();
  };

  const addressOf = (name) => (name === "map" ? "#map" : location.pathname);

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
    history.pushState({ visit: visited.length - 1 }, "", addressOf(nameOf(tab)));
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
    showTab(location.hash === "#map" ? "map" : "search");
    parts.restore(visit ? visit.state : null);
    count = visit ? visit.count : PAGE_OF_HITS;
    if (words) words.value = visit ? visit.words : "";
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

  // Keys: "/" to the box, arrows through the hits.
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, [role=tab], canvas, dialog");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    if (event.key === "/" && words) {
      event.preventDefault();
      showTab("search");
      words.focus();
      words.select();
      return;
    }
    if (at("search").hidden || !results.children.length) return;
    const cards = [...results.children];
    const here = cards.findIndex((card) => card.contains(document.activeElement));
    const abreast = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: abreast, ArrowUp: -abreast }[event.key];
    if (!step || (here < 0 && document.activeElement !== results)) return;
    event.preventDefault();
    const next = cards[here < 0 ? 0 : here + step];
    if (next) next.querySelector("button").focus();
  });

  history.replaceState({ visit: -1 }, "");
  addEventListener("DOMContentLoaded", () => {
    showTab(location.hash === "#map" ? "map" : "search");
    // On a phone the focus would open the keyboard over the page.
    if (words && !location.hash && matchMedia("(hover: hover)").matches) words.focus();
  });
})();
