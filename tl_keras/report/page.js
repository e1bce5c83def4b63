"use strict";
// Makes tables sortable by buttons in their headings: rising, falling, and back to the order of the page.
(() => {
  const EMPTY = ["", "–", "—", "nan"];
  const DURATION = /^(?:(\d+) h)? ?(?:(\d+) min)? ?(?:(\d+(?:\.\d+)?) s)?$/;
  // A number at the start of a cell, such as 97.50 ± 1.2, (82.99), < 0.0001, 57,044,810 or 9 of 10.
  const NUMBER = /^[(<\s]*([+-]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]?\d+)?)(?=$|[\s)%]|, )/i;
  const NEXT = { ascending: "descending", descending: null };

  function toNumber(text) {
    const duration = DURATION.exec(text);
    if (duration) {
      const [hours, minutes, seconds] = duration.slice(1).map((part) => Number(part || 0));
      return 3600 * hours + 60 * minutes + seconds;
    }
    const number = NUMBER.exec(text.replace("\u2212", "-"));
    return number ? Number(number[1].replaceAll(",", "")) : NaN;
  }

  // Returns the rows in the order of a column. Rows without a value come last.
  function sorted(rows, column, isFalling) {
    const texts = new Map(rows.map((row) => [row, row.cells[column].textContent.trim()]));
    const isEmpty = (row) => EMPTY.includes(texts.get(row));
    const filled = rows.filter((row) => !isEmpty(row));
    const numbers = new Map(filled.map((row) => [row, toNumber(texts.get(row))]));
    const isNumeric = ![...numbers.values()].some(Number.isNaN);
    const compare = (a, b) =>
      isNumeric ? numbers.get(a) - numbers.get(b) : texts.get(a).localeCompare(texts.get(b), "en", { numeric: true });
    return [...filled.sort((a, b) => (isFalling ? compare(b, a) : compare(a, b))), ...rows.filter(isEmpty)];
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const body = table.tBodies[0];
    const original = [...body.rows];
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const before = heading.getAttribute("aria-sort");
        const order = before ? NEXT[before] : "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        if (order) heading.setAttribute("aria-sort", order);
        body.append(...(order ? sorted(original, column, order === "descending") : original));
      });
    });
  }
})();
