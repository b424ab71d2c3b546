"use strict";
// sorting: a click on a heading orders the rows, a second one the other way round
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") === "descending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const text = (row) => row.cells[column].textContent.trim();
    const order = (a, b) => {
      const [x, y] = [text(a), text(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return rising ? difference : -difference;
    };
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}
// cards: by word, by group, by score
const cards = document.getElementById("cards");
if (cards) {
  const all = [...cards.children];
  const [word, group, order] = ["word", "group", "order"].map((name) => document.getElementById(name));
  const score = (card) => parseFloat(card.dataset.score);
  const update = () => {
    const wanted = word.value.trim().toLowerCase();
    const chosen = all.filter((card) =>
      (!wanted || card.textContent.toLowerCase().includes(wanted)) &&
      (!group || !group.value || card.dataset.groups.split(" ").includes(group.value)));
    if (order.value) {
      const sign = order.value === "low" ? 1 : -1;
      chosen.sort((a, b) => isNaN(score(a)) - isNaN(score(b)) || sign * (score(a) - score(b)));
    }
    cards.replaceChildren(...chosen);
    document.getElementById("shown").textContent = `${chosen.length} shown`;
  };
  for (const control of [word, group, order]) if (control) control.addEventListener("input", update);
}
// images: larger on a click
const dialog = document.getElementById("large");
for (const image of document.querySelectorAll(".card img, img.figure")) {
  image.addEventListener("click", () => {
    dialog.firstElementChild.src = image.src;
    dialog.showModal();
  });
}
dialog.addEventListener("click", () => dialog.close());
