"use strict";
// The selected cases: chosen on hits and on the map, shown in a bar at the bottom, and what can be done with them.
(() => {
  const { at, make, button, answerOf, reasonOf, markOf, say: t } = gapless;
  const [bar, number, compare, dialog, body, status] =
    ["selection", "selection-number", "selection-compare", "shared", "shared-body", "shared-status"].map(at);
  const MAX = 1000; // the service takes no more
  const MAX_VALUES = 4; // of a label, in what cases share
  const selected = new Set();
  let latest = 0;

  const changed = () => {
    bar.hidden = !selected.size;
    number.textContent = t(selected.size === 1 ? "selection.one" : "selection.count", { count: selected.size });
    compare.disabled = selected.size !== 2;
    document.body.classList.toggle("selecting", Boolean(selected.size));
    for (const box of document.querySelectorAll(".pick input")) {
      box.checked = selected.has(box.dataset.id);
      box.closest(".hit").classList.toggle("selected", box.checked);
    }
    document.dispatchEvent(new CustomEvent("gapless:selection"));
  };
  const add = (ids) => {
    for (const id of ids) if (selected.size < MAX) selected.add(id);
    changed();
  };
  const toggle = (id) => {
    if (!selected.delete(id)) return add([id]);
    changed();
  };
  const set = (ids) => {
    selected.clear();
    add(ids);
  };
  // The box of a hit; several rows of one case have the same.
  const boxOf = (hit) => {
    const box = make("input");
    Object.assign(box, { type: "checkbox", checked: selected.has(hit.id) });
    box.dataset.id = hit.id;
    box.setAttribute("aria-label", t("selection.select", { id: hit.id }));
    box.addEventListener("change", () => toggle(hit.id));
    return make("label", "pick", box);
  };

  const post = (path) => fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ids: [...selected] }) });
  const percent = (share) => `${Math.round(100 * share)} %`;
  const tableOf = (caption, heads, rows) => {
    const head = make("tr", "", ...heads.map((text) => Object.assign(make("th", "", text), { scope: "col" })));
    const lines = rows.map(([first, ...cells]) => make("tr", "", Object.assign(make("th", "", first), { scope: "row" }), ...cells.map((cell) => make("td", "", cell))));
    return make("table", "", make("caption", "", caption), make("thead", "", head), make("tbody", "", ...lines));
  };
  const labelTable = ([name, values]) => {
    const rows = values.slice(0, MAX_VALUES).map((one) => [one.value, one.count, percent(one.share), percent(one.collection_share)]);
    if (values.length > MAX_VALUES) rows.push([t("shared.more", { count: values.length - MAX_VALUES }), "", "", ""]);
    return tableOf(name.replaceAll("_", " "), [t("shared.value"), t("shared.cases"), t("shared.share"), t("shared.in-all")], rows);
  };
  const NAMES = { "gap/centroid_distance_unbiased": "shared.distance", "gap/true_pair_cosine": "shared.pair-cosine", "gap/margin": "shared.margin" };
  const gapTable = (found) => {
    const digits = (value) => (value === undefined ? "–" : value.toFixed(3));
    const rows = Object.keys(NAMES).map((key) => [t(NAMES[key]), digits(found.gap[key]), digits(found.collection_gap[key])]);
    for (const [name, value] of Object.entries(found.within_cosine)) rows.push([t("shared.within", { modality: name }), digits(value), ""]);
    return tableOf(t("shared.gap", { count: found.num_pairs }), [t("shared.figure"), t("shared.selection"), t("shared.map")], rows);
  };
  const show = (found) => {
    const texts = found.texts.map((hit) => make("li", "", make("p", "", hit.caption || hit.preview || hit.id),
      make("p", "notice", markOf(hit.modality), ` · ${t("pair.cosine")} ${hit.similarity.toFixed(3)} · ${hit.id}`)));
    const labels = Object.entries(found.labels).map(labelTable);
    body.replaceChildren(...[
      ...(labels.length ? labels : [make("p", "notice", t("shared.no-labels"))]),
      gapTable(found),
      texts.length ? make("h3", "", t("shared.texts")) : null,
      texts.length ? make("ol", "texts", ...texts) : null,
    ].filter(Boolean));
    status.textContent = found.absent.length ? t("shared.absent", { count: found.absent.length }) : "";
  };
  const open = async () => {
    const own = ++latest;
    body.replaceChildren();
    status.classList.remove("error");
    status.textContent = t("shared.reading");
    if (!dialog.open) dialog.showModal();
    try {
      const found = await answerOf(await post("/api/selection"));
      if (own === latest) show(found);
    } catch (error) {
      if (own !== latest) return;
      status.textContent = reasonOf(error);
      status.classList.add("error");
    }
  };
  const save = async () => {
    try {
      const response = await post("/api/selection/csv");
      if (!response.ok) await answerOf(response);
      const link = make("a");
      Object.assign(link, { href: URL.createObjectURL(await response.blob()), download: "selection.csv" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) {
      number.textContent = reasonOf(error);
    }
  };

  at("selection-shared").addEventListener("click", open);
  at("selection-save").addEventListener("click", save);
  at("selection-clear").addEventListener("click", () => set([]));
  compare.addEventListener("click", () => gapless.openCases([...selected]));
  at("shared-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // the backdrop
  document.addEventListener("gapless:language", changed);
  gapless.selection = { has: (id) => selected.has(id), ids: () => [...selected], add, toggle, set, boxOf };
})();
