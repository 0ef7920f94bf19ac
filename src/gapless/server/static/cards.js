"use strict";
// One hit of the results: its face, its score, and what can be done with it.
(() => {
  const { make, button, markOf, faceOf, isTable, tagsOf, say: t, selection } = gapless;
  const LONG = 140; // characters of a text that is folded

  const scoreOf = (hit, digits, isBalanced) => {
    const score = make("span", "score", isBalanced ? hit.balanced.toFixed(2) : hit.score.toFixed(digits));
    score.title = isBalanced ? t("score.balanced-why", { modality: hit.modality }) : t(digits === 3 ? "score.cosine-why" : "score.fused-why");
    return score;
  };
  const unfoldOf = (card) => {
    const whole = button(t("hit.full"), () => {
      const open = card.classList.toggle("open");
      whole.textContent = t(open ? "hit.less" : "hit.full");
      whole.setAttribute("aria-expanded", String(open));
    });
    whole.setAttribute("aria-expanded", "false");
    return whole;
  };

  gapless.cardOf = (hit, digits, isBalanced) => {
    const caption = hit.caption || "";
    const face = faceOf(hit);
    const isQuote = !hit.has_thumbnail && !isTable(hit);
    const below = caption && !(isQuote && !hit.preview); // the caption stands beside a face that is something else
    const open = button(t("hit.case"), () => gapless.openCase(hit.id));
    open.setAttribute("aria-haspopup", "dialog");
    const acts = make("div", "acts", button(t("hit.like"), () => gapless.findLike(hit)), open);
    const card = make("li", "hit", face, make("div", "words",
      make("div", "line", make("span", "which", selection.boxOf(hit), markOf(hit.modality)), scoreOf(hit, digits, isBalanced)),
      isBalanced ? make("p", "cosine", `${t("pair.cosine")} ${hit.similarity.toFixed(3)}`) : null,
      below ? make("p", "caption", caption) : null,
      tagsOf(hit) ? make("p", "tags", tagsOf(hit)) : null,
      make("p", "identity", hit.id),
      acts));
    if (caption.length > LONG || (isQuote && (hit.preview || "").length > LONG)) acts.append(unfoldOf(card));
    card.querySelector(".identity").title = hit.id;
    card.classList.toggle("selected", selection.has(hit.id));
    if (face) { // for the pointer; keys have the button
      face.classList.add("opens");
      face.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey) selection.toggle(hit.id);
        else if (!String(getSelection())) open.click();
      });
    }
    return card;
  };
})();
