"use strict";
// One case, or two side by side: everything that the collection has of them, in a dialog that Escape closes.
(() => {
  const { at, make, button, answerOf, reasonOf, markOf, faceOf, tagsOf, collection, say: t } = gapless;
  const [dialog, title, tags, status, items] = ["case", "case-title", "case-tags", "case-status", "case-items"].map(at);
  let latest = 0;

  const itemOf = (row) => make("section", "item",
    make("div", "line", markOf(row.modality), button(t("hit.like"), () => {
      dialog.close();
      gapless.findLike(row);
    })),
    faceOf(row, true) || make("p", "notice", t("case.nothing")));
  const captionOf = (found) => {
    const { caption } = found.rows[0];
    const isSaid = found.rows.some((row) => collection.kinds[row.modality] === "text" && !row.preview); // the caption is a row of its own
    return caption && !isSaid ? make("section", "item", make("div", "line", t("case.caption")), make("p", "quote", make("span", "", caption))) : null;
  };
  const absentOf = (found) => (found.absent.length ? t("case.absent", { modalities: found.absent.join(", ") }) : "");

  const showOne = (found) => {
    tags.textContent = tagsOf(found.rows[0]);
    tags.hidden = !tags.textContent;
    items.replaceChildren(...[...found.rows.map(itemOf), captionOf(found)].filter(Boolean));
    status.textContent = absentOf(found);
  };
  // Two cases: a line for each modality, so that like stands beside like; then what their labels say.
  const showTwo = ([both, cosines]) => {
    const cells = [];
    const names = Object.keys(collection.marks).filter((name) => both.some((found) => found.rows.some((row) => row.modality === name)));
    for (const name of names) {
      const cosine = cosines[name];
      if (cosine !== undefined) cells.push(make("p", "alike", markOf(name), ` · ${t("case.alike", { cosine: cosine.toFixed(3) })}`));
      for (const found of both) {
        const row = found.rows.find((one) => one.modality === name);
        cells.push(row ? itemOf(row) : make("section", "item lacks", make("div", "line", markOf(name)), make("p", "notice", t("case.lacks"))));
      }
    }
    for (const found of both) cells.push(captionOf(found) || make("div", ""));
    const labels = Object.keys(both[0].rows[0].labels);
    for (const [place, found] of both.entries()) {
      const { labels: own } = found.rows[0], other = both[1 - place].rows[0].labels;
      const lines = labels.map((name) => make("div", own[name] === other[name] ? "" : "differs", make("dt", "", name.replaceAll("_", " ")), make("dd", "", own[name] || "–")));
      const list = make("dl", "values", ...lines);
      if (labels.length) cells.push(make("section", "item", make("div", "line", t("case.labels")), list));
    }
    items.replaceChildren(...both.map((found) => make("h3", "wrap", found.id)), ...cells);
    status.textContent = "";
  };

  const reading = async (heading, isTwo, read, show) => {
    const number = ++latest;
    title.textContent = heading;
    tags.hidden = true;
    items.replaceChildren();
    items.classList.toggle("two", isTwo);
    status.classList.remove("error");
    status.textContent = t("case.reading");
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    try {
      const found = await read();
      if (number === latest) show(found);
    } catch (error) {
      if (number !== latest) return;
      status.textContent = reasonOf(error);
      status.classList.add("error");
    }
  };
  const caseOf = async (id) => answerOf(await fetch(`/api/case?id=${encodeURIComponent(id)}`));
  const cosinesOf = async (ids) => {
    const sent = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ids }) };
    return (await answerOf(await fetch("/api/selection", sent))).within_cosine;
  };
  gapless.openCase = (id) => reading(id, false, () => caseOf(id), showOne);
  gapless.openCases = (ids) => reading(t("case.two"), true, async () => [await Promise.all(ids.map(caseOf)), await cosinesOf(ids)], showTwo);
  at("case-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // the backdrop
})();
