"use strict";
// One case: everything that the collection has of a sample, side by side, in a dialog that Escape closes.
(() => {
  const { at, make, button, answerOf, reasonOf, markOf, faceOf, tagsOf, collection } = gapless;
  const [dialog, title, tags, status, items] = ["case", "case-title", "case-tags", "case-status", "case-items"].map(at);
  let latest = 0;

  const itemOf = (row) => make("section", "item",
    make("div", "line", markOf(row.modality), button("More like this", () => {
      dialog.close();
      gapless.findLike(row);
    })),
    faceOf(row, true) || make("p", "notice", "There is no picture and no text of it in the collection."));

  const show = (found) => {
    const [first] = found.rows;
    tags.textContent = tagsOf(first);
    tags.hidden = !tags.textContent;
    const shown = found.rows.map(itemOf);
    const isSaid = found.rows.some((row) => collection.kinds[row.modality] === "text" && !row.preview); // the caption is a row of its own
    if (first.caption && !isSaid) shown.push(make("section", "item", make("div", "line", "caption"), make("p", "quote", make("span", "", first.caption))));
    items.replaceChildren(...shown);
    status.textContent = found.absent.length ? `Not in this case: ${found.absent.join(", ")}.` : "";
  };

  gapless.openCase = async (id) => {
    const number = ++latest;
    title.textContent = id;
    tags.hidden = true;
    items.replaceChildren();
    status.classList.remove("error");
    status.textContent = "Reading the case …";
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
    try {
      const found = await answerOf(await fetch(`/api/case?id=${encodeURIComponent(id)}`));
      if (number === latest) show(found);
    } catch (error) {
      if (number !== latest) return;
      status.textContent = reasonOf(error);
      status.classList.add("error");
    }
  };
  at("case-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // the backdrop
})();
