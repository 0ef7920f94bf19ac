"use strict";
// Search: one query at a time. Nothing that was asked is written anywhere: not into the address, not into storage.
const gapless = (() => {
  const at = (id) => document.getElementById(id);
  const make = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const thumbnail = (row) => `/api/thumbnail?row=${encodeURIComponent(row)}`;
  const answerOf = async (response) => {
    const body = await response.json().catch(() => ({ error: `the service answered ${response.status}` }));
    if (!response.ok) throw new Error(body.error);
    return body;
  };
  const reasonOf = (error) => (error instanceof TypeError ? "the service cannot be reached; is it still running?" : error.message);

  const { maxUpload, maxHits } = document.body.dataset;
  const PAGE_OF_HITS = 24;
  const GLYPHS = new Map([...at("modality").options].slice(1).map((option, index) => [option.value, index]));
  const [form, words, file, status, results, further, welcome] =
    ["form", "words", "file", "status", "results", "further", "welcome"].map(at);
  const [modality, where, hybrid, weight, balanced] = ["modality", "where", "hybrid", "weight", "balanced"].map(at);
  const labels = [...document.querySelectorAll("select.label")];

  // What is asked: words stand in the box, the rest here. `like` is a hit, `image` a file.
  let like = null, image = null, preview = null, count = PAGE_OF_HITS, latest = 0, shown = false;
  // The browser's Back goes through the queries of this visit; they live in this list only.
  const visited = [];

  const say = (text, isError = false) => {
    status.textContent = text;
    status.classList.toggle("error", isError);
  };
  const bitmapOf = (source) => (source ? URL.createObjectURL(source) : null);

  const showChips = () => {
    if (preview) URL.revokeObjectURL(preview);
    preview = bitmapOf(image);
    const picture = at("preview");
    picture.hidden = !(image || (like && like.has_thumbnail));
    if (!picture.hidden) picture.src = preview || thumbnail(like.row);
    at("chip-text").textContent = like ? `more like ${like.caption || like.id}` : image ? image.name || "pasted image" : "";
    at("remove").setAttribute("aria-label", like ? "Stop looking for more like this" : "Remove the image");
    at("chips").hidden = !(image || like);
    at("balance").hidden = !(image && words && words.value.trim());
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
    const asked = { k: count, labels: {} };
    if (like) asked.like = like.row;
    else if (words && words.value.trim()) asked.text = words.value.trim();
    if (image) asked.image_weight = Number(weight.value);
    if (modality.value) asked.modality = modality.value;
    for (const select of labels) if (select.value) asked.labels[select.dataset.label] = select.value;
    if (where.value.trim()) asked.where = where.value.trim();
    if (hybrid && hybrid.checked && asked.text) asked.hybrid = true;
    if (balanced && !balanced.checked) asked.raw = true;
    return asked;
  };
  const send = (asked) => {
    if (!image) {
      return fetch("/api/search", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(asked) });
    }
    const body = new FormData();
    body.append("image", image, "image");
    body.append("query", JSON.stringify(asked));
    return fetch("/api/search/image", { method: "POST", body });
  };

  const search = async ({ remember = true } = {}) => {
    showChips();
    showFilters();
    const asked = query();
    if (!asked.text && !asked.like && !image) {
      if (shown) clearResults();
      say(words ? "Type words or add an image." : "");
      return;
    }
    if (remember) {
      visited.push({ like, image, words: words ? words.value : "", count });
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
    further.hidden = hits.length < count || count >= Number(maxHits);
  };
  const markOf = (name) => {
    const mark = make("span", "", ["●", "▲", "■", "◆"][GLYPHS.get(name) % 4]);
    mark.style.color = `var(--${["blue", "orange", "green", "purple"][GLYPHS.get(name) % 4]})`;
    mark.setAttribute("aria-hidden", "true");
    return make("span", "", mark, ` ${name}`);
  };
  const cardOf = (hit, digits, isBalanced) => {
    const caption = hit.caption || "";
    let face = null;
    if (hit.has_thumbnail) {
      const picture = make("img");
      Object.assign(picture, { src: thumbnail(hit.row), alt: `${hit.modality} of ${hit.id}`, loading: "lazy", decoding: "async" });
      face = make("div", "picture", picture);
    } else if (caption) {
      face = make("p", "quote", make("span", "", caption));
    }
    const score = make("span", "score", isBalanced ? hit.balanced.toFixed(2) : hit.score.toFixed(digits));
    score.title = isBalanced ? `balanced score: standard deviations above what is usual among the nearest ${hit.modality}s`
      : digits === 3 ? "cosine, 1 is the same direction" : "fused score of both rankings";
    const cosine = isBalanced ? make("p", "cosine", `cosine ${hit.similarity.toFixed(3)}`) : null;
    const tags = Object.values(hit.labels).filter(Boolean).join(" · ");
    const more = make("button", "", "More like this");
    more.type = "button";
    more.addEventListener("click", () => findLike(hit));
    const acts = make("div", "acts", more);
    const card = make("li", "hit", face, make("div", "words",
      make("div", "line", markOf(hit.modality), score),
      cosine,
      hit.has_thumbnail && caption ? make("p", "caption", caption) : null,
      tags ? make("p", "tags", tags) : null,
      make("p", "identity", hit.id),
      acts));
    if (caption.length > 140) {
      const whole = make("button", "", "Full text");
      whole.type = "button";
      whole.setAttribute("aria-expanded", "false");
      whole.addEventListener("click", () => {
        const open = card.classList.toggle("open");
        whole.textContent = open ? "Less text" : "Full text";
        whole.setAttribute("aria-expanded", String(open));
      });
      acts.append(whole);
    }
    card.querySelector(".identity").title = hit.id;
    return card;
  };

  const findLike = (hit) => {
    like = hit;
    image = null;
    count = PAGE_OF_HITS;
    if (words) words.value = "";
    showTab("search");
    scrollTo({ top: 0 });
    search().then(() => results.focus({ preventScroll: true }));
  };
  const takeImage = (found) => {
    if (!found || !file) return;
    if (found.size > Number(maxUpload)) {
      say(`This image has ${(found.size / 1e6).toFixed(0)} MB; ${Number(maxUpload) / 1e6} MB is the most.`, true);
      return;
    }
    image = found;
    like = null;
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
    like = visit ? visit.like : null;
    image = visit ? visit.image : null;
    count = visit ? visit.count : PAGE_OF_HITS;
    if (words) words.value = visit ? visit.words : "";
    search({ remember: false });
  });

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (words && words.value.trim()) like = null;
    count = PAGE_OF_HITS;
    search();
  });
  if (words) words.addEventListener("input", showChips);
  if (file) {
    file.addEventListener("change", () => {
      takeImage(file.files[0]);
      file.value = "";
    });
    addEventListener("paste", (event) => {
      const pasted = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
      if (!pasted) return;
      event.preventDefault();
      takeImage(pasted);
    });
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
    addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) document.body.classList.remove("dropping");
    });
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dropping");
      takeImage(event.dataTransfer.files[0]);
    });
  }
  at("remove").addEventListener("click", () => {
    like = image = null;
    search();
    if (words) words.focus();
  });
  at("preview").addEventListener("error", () => { at("preview").hidden = true; }); // DICOM is no picture to a browser
  const refine = () => {
    count = PAGE_OF_HITS;
    search({ remember: false });
  };
  for (const control of [modality, where, hybrid, weight, balanced, ...labels]) if (control) control.addEventListener("change", refine);
  at("clear").addEventListener("click", () => {
    for (const control of [modality, where, ...labels]) control.value = "";
    if (hybrid) hybrid.checked = false;
    refine();
  });
  further.addEventListener("click", async () => {
    const before = results.children.length;
    count = Math.min(count * 2, Number(maxHits));
    await search({ remember: false });
    const next = results.children[before];
    if (next) next.querySelector("button").focus();
  });

  // Keys: "/" to the box, arrows through the hits.
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, [role=tab], canvas");
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
  return { at, make, thumbnail, answerOf, reasonOf, findLike };
})();
