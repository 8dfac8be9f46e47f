"use strict";
// A <table class="sortable"> is sorted by the buttons in its headings; a cell's data-value goes before its text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column], given = cell.dataset.value ?? cell.textContent.trim();
    return given === "" ? null : isNaN(given) ? given : Number(given);
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  table.querySelectorAll("thead th").forEach((heading, column) => {
    if (heading.dataset.sort === "no") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down > 0 ? "ascending" : "descending");
      const rows = [...body.rows].map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => (a === null ? 1 : 0) - (b === null ? 1 : 0) || (a === null ? 0 : down * compare(a, b)));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
