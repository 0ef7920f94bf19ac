"use strict";
// The parts of a query beside the words: files, texts and the values of tables, each with a chip and a weight.
(() => {
  const { at, make, collection, thumbnail, say: t } = gapless;
  const [list, balance, weight, words] = ["chips", "balance", "weight", "words"].map(at);
  const panels = new Map([...document.querySelectorAll(".panel")].map((panel) => [panel.dataset.modality, panel]));
  const ENDINGS = { // of files that a kind reads; what is dropped goes to the first modality whose kind reads it
    image: /^image\/|\.(png|jpe?g|tiff?|webp|bmp|gif|dcm)$/i,
    waveform: /\.(edf|bdf|npy|dcm|wav|flac)$/i,
    volume: /\.(nii|nii\.gz|npy|dcm)$/i,
    audio: /^audio\/|\.(wav|flac)$/i,
  };
  const EQUAL = 0.5;
  let parts = new Map(); // modality -> { files } or { text } or { fields }
  let like = null; // a hit, in place of all parts
  let changed = () => {}; // what the page does then
  const weights = new Map(); // modality -> 0 to 1

  const hasWords = () => Boolean(collection.words && words && words.value.trim());
  const used = () => (like ? [] : [...(hasWords() ? [collection.words] : []), ...parts.keys()]);
  const weightOf = (name) => weights.get(name) ?? EQUAL;
  const isWords = (name) => name === collection.words;
  const shortName = (name) => (isWords(name) ? t("part.words") : name);

  // What the API is asked: the files go beside it.
  const query = () => {
    const names = used();
    const asked = {};
    if (like) asked.like = like.row;
    else if (hasWords()) asked.text = words.value.trim();
    const written = [...parts].filter(([, part]) => !part.files).map(([name, part]) => [name, part.fields || part.text]);
    if (written.length) asked.parts = Object.fromEntries(written);
    if (names.length > 1) asked.weights = Object.fromEntries(names.map((name) => [name, weightOf(name)]));
    return asked;
  };
  const files = () => [...parts].flatMap(([name, part]) => (part.files || []).map((file) => [name, file]));

  const textOf = (name) => {
    const part = parts.get(name);
    if (!part) return isWords(name) ? `“${words.value.trim()}”` : "";
    if (part.files) return part.files.length > 1 ? t("part.files", { count: part.files.length }) : part.files[0].name || t("part.pasted");
    if (part.text) return part.text;
    return Object.entries(part.fields).map(([field, value]) => `${field} ${value}`).join(", ");
  };
  const sliderOf = (name) => {
    const slider = make("input");
    Object.assign(slider, { type: "range", min: 0, max: 1, step: 0.05, value: weightOf(name) });
    slider.setAttribute("aria-label", t("part.weight-of", { name: shortName(name) }));
    slider.addEventListener("change", () => {
      weights.set(name, Number(slider.value));
      changed({ remember: false });
    });
    return make("label", "weight", `${t("part.weight")} `, slider);
  };
  const chipOf = (name) => {
    const file = parts.get(name)?.files?.[0];
    const picture = like ? (like.has_thumbnail ? thumbnail(like.row) : null) : file && collection.kinds[name] === "image" ? URL.createObjectURL(file) : null;
    const remove = make("button", "remove", "×");
    remove.type = "button";
    remove.setAttribute("aria-label", like ? t("part.stop-like") : t("part.remove", { name: shortName(name) }));
    remove.addEventListener("click", () => discard(name));
    const chip = make("div", "chip", null, make("span", "chip-name", like ? t("part.like") : shortName(name)), make("span", "chip-text"), remove);
    if (picture) {
      const image = make("img");
      Object.assign(image, { src: picture, alt: "" });
      image.addEventListener("error", () => image.remove()); // DICOM is no picture to a browser
      chip.prepend(image);
    }
    chip.dataset.part = name;
    chip.dataset.revoke = picture && !like ? picture : "";
    chip.source = like || file || null;
    return chip;
  };
  // Chips stay where they are as long as their part does, so that a slider keeps the focus.
  const render = () => {
    const names = used();
    const isBalance = names.length === 2; // one slider between two; more have one each, and the words a chip too
    const shown = like ? [like.row] : names.filter((name) => names.length > 2 || parts.has(name));
    for (const chip of [...list.querySelectorAll(".chip")]) {
      const source = like || parts.get(chip.dataset.part)?.files?.[0] || null;
      if (shown.includes(chip.dataset.part) && chip.source === source) continue;
      if (chip.dataset.revoke) URL.revokeObjectURL(chip.dataset.revoke);
      chip.remove();
    }
    let before = null;
    shown.forEach((name) => {
      let chip = [...list.children].find((one) => one.dataset.part === name);
      if (!chip) {
        chip = chipOf(name);
        if (before) before.after(chip);
        else list.prepend(chip);
      }
      before = chip;
      chip.querySelector(".chip-text").textContent = like ? like.caption || like.id : textOf(name);
      const slider = chip.querySelector(".weight");
      if (names.length > 2 && !slider) chip.querySelector(".remove").before(sliderOf(name));
      else if (names.length <= 2 && slider) slider.remove();
    });
    balance.hidden = !isBalance;
    if (isBalance) {
      const [first, second] = names;
      at("balance-first").textContent = shortName(first);
      at("balance-second").textContent = shortName(second);
      weight.setAttribute("aria-label", t("part.weight-against", { second: shortName(second), first: shortName(first) }));
      const sum = weightOf(first) + weightOf(second);
      weight.value = String(sum ? weightOf(second) / sum : EQUAL);
    }
    list.hidden = !shown.length && !isBalance;
    for (const control of document.querySelectorAll(".adds .button, .ask .button[data-modality]")) control.classList.toggle("used", !like && parts.has(control.dataset.modality));
  };

  const panelInputs = (name) => [...(panels.get(name)?.querySelectorAll("[data-field]") || [])];
  const fillPanel = (name) => {
    const part = like ? null : parts.get(name);
    for (const input of panelInputs(name)) input.value = part?.fields ? part.fields[input.dataset.field] ?? "" : part?.text || "";
  };
  const put = (name, part) => {
    like = null;
    if (part) parts.set(name, part);
    else parts.delete(name);
  };
  const discard = (name) => {
    if (like) like = null;
    else if (parts.has(name)) parts.delete(name);
    else words.value = "";
    fillPanel(name);
    changed();
    if (words) words.focus();
  };
  const readPanel = (name) => {
    const inputs = panelInputs(name);
    inputs.find((input) => input.validity.badInput)?.reportValidity(); // what is no number is no value
    const given = inputs.filter((input) => input.value.trim());
    if (!given.length) return put(name, null);
    const isTable = collection.kinds[name] === "table";
    const valueOf = (input) => (input.type === "number" ? Number(input.value) : input.value.trim());
    put(name, isTable ? { fields: Object.fromEntries(given.map((input) => [input.dataset.field, valueOf(input)])) } : { text: given[0].value.trim() });
  };
  for (const [name, panel] of panels) panel.addEventListener("change", () => {
    readPanel(name);
    changed({ remember: false });
  });
  for (const opener of document.querySelectorAll("button[aria-controls^=panel-]")) opener.addEventListener("click", () => {
    const panel = at(opener.getAttribute("aria-controls"));
    panel.hidden = !panel.hidden;
    opener.setAttribute("aria-expanded", String(!panel.hidden));
    if (!panel.hidden) panel.querySelector("[data-field]").focus();
  });
  weight.addEventListener("change", () => {
    const [first, second] = used();
    weights.set(first, 1 - Number(weight.value)).set(second, Number(weight.value));
    changed({ remember: false });
  });

  gapless.parts = {
    query, files, render, put, hasWords,
    isEmpty: () => !like && !used().length,
    onChange: (act) => { changed = act; },
    setLike: (hit) => {
      like = hit;
      parts = new Map();
      panels.forEach((_, name) => fillPanel(name));
    },
    dropLike: () => { like = null; },
    clear: () => {
      like = null;
      parts = new Map();
    },
    // For the address: all but the words and the files.
    written: () => ({ like: like ? like.row : "", parts: query().parts || {}, weights: Object.fromEntries(weights) }),
    read: (given, shares) => {
      like = null;
      const valueOf = (value) => (typeof value === "string" ? { text: value } : { fields: value });
      parts = new Map(Object.entries(given).filter(([name, value]) => panels.has(name) && value).map(([name, value]) => [name, valueOf(value)]));
      weights.clear();
      for (const [name, value] of Object.entries(shares)) if (value >= 0 && value <= 1) weights.set(name, Number(value));
      panels.forEach((_, name) => fillPanel(name));
    },
    redraw: () => {
      list.querySelectorAll(".chip").forEach((chip) => chip.remove());
      render();
    },
    // For the way back: what was asked, without the words.
    state: () => ({ like, parts: new Map(parts) }),
    restore: (state) => {
      like = state ? state.like : null;
      parts = new Map(state ? state.parts : []);
      panels.forEach((_, name) => fillPanel(name));
    },
    modalityOf: (file) => collection.files.find((name) => {
      const pattern = ENDINGS[collection.kinds[name]];
      return !pattern || pattern.test(file.type) || pattern.test(file.name);
    }) ?? collection.files[0],
  };
})();
