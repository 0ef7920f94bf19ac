"use strict";
// What the other files share: elements, requests, the collection, and how a row of each kind looks.
const gapless = (() => {
  const at = (id) => document.getElementById(id);
  const make = (tag, name, ...children) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };
  const button = (text, act) => {
    const element = make("button", "", text);
    element.type = "button";
    element.addEventListener("click", act);
    return element;
  };
  const thumbnail = (row) => `/api/thumbnail?row=${encodeURIComponent(row)}`;
  const answerOf = async (response) => {
    const body = await response.json().catch(() => ({ error: gapless.say("error.status", { status: response.status }) }));
    if (!response.ok) throw new Error(body.error);
    return body;
  };
  const reasonOf = (error) => (error instanceof TypeError ? gapless.say("error.unreachable") : error.message);

  // marks (modality -> glyph and colour), kinds (modality -> kind), tables (modality -> names of fields), words, files,
  // several (modalities whose files may be several), maxUpload, maxHits
  const collection = JSON.parse(document.body.dataset.collection);
  const markOf = (name) => {
    const { glyph, colour } = collection.marks[name];
    const mark = make("span", "", glyph);
    mark.style.color = `var(${colour})`;
    mark.setAttribute("aria-hidden", "true");
    return make("span", "mark", mark, ` ${name}`);
  };

  const CURVES = ["waveform", "audio"];
  const pictureOf = (hit) => {
    const picture = make("img");
    Object.assign(picture, { src: thumbnail(hit.row), alt: gapless.say("picture.of", { modality: hit.modality, id: hit.id }), loading: "lazy", decoding: "async" });
    return make("div", CURVES.includes(collection.kinds[hit.modality]) ? "picture curve" : "picture", picture);
  };
  // A table's preview has a line for each field, in the order of its columns: "hb: 11.2".
  const valuesOf = (hit, isWhole) => {
    const names = collection.tables[hit.modality] || [];
    const fields = hit.preview.split("\n").map((line, place) => {
      const name = line.startsWith(`${names[place]}: `) ? names[place] : line.split(": ")[0];
      return [name, line.slice(name.length + 2)];
    });
    const shown = fields.filter(([, value]) => isWhole || value !== "–");
    const list = make("dl", "values");
    list.append(...shown.map(([name, value]) => make("div", value === "–" ? "none" : "", make("dt", "", name), make("dd", "", value))));
    return list;
  };
  const isTable = (hit) => collection.kinds[hit.modality] === "table" && Boolean(hit.preview);
  // What a row shows: a picture, the values of a table, or a text.
  const faceOf = (hit, isWhole = false) => {
    if (hit.has_thumbnail) return pictureOf(hit);
    if (isTable(hit)) return valuesOf(hit, isWhole);
    const isCaption = !isWhole || collection.kinds[hit.modality] === "text"; // in a case it is that of the text alone
    const text = hit.preview || (isCaption ? hit.caption : "");
    return text ? make("p", "quote", make("span", "", text)) : null;
  };
  const tagsOf = (hit) => Object.values(hit.labels).filter(Boolean).join(" · ");
  return { at, make, button, thumbnail, answerOf, reasonOf, collection, markOf, faceOf, isTable, tagsOf };
})();
