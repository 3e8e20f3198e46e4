// SPDX-License-Identifier: Apache-2.0
// Draws the page's figures and tables from the JSON beside it; see npusim/report/page.py.
"use strict";
(() => {
  const content = JSON.parse(document.getElementById("page-content").textContent);
  const DARK = "(prefers-color-scheme: dark)";
  const NARROW = "(max-width: 640px)";
  // Asked of a new list each time: Chromium never tells a list of a change that was read from it first.
  const is = (media) => window.matchMedia(media).matches;
  const MANY = 1500; // marks beyond which pictures are pixels: elements would be slow

  const LONG = 28; // letters of a table's text beyond which it takes several lines

  const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
  const unpack = (text, most) => {
    let width = 1;
    while (DIGITS.length ** width < most) width += 1;
    const found = [];
    for (let at = 0; at < text.length; at += width) {
      let number = 0;
      for (let i = at; i < at + width; i += 1) number = number * DIGITS.length + DIGITS.indexOf(text[i]);
      found.push(number);
    }
    return found;
  };
  const rowsOf = (columns) => {
    const names = Object.keys(columns);
    const lists = names.map((name) => {
      const { texts, packed } = columns[name];
      return texts ? unpack(packed, texts.length).map((place) => texts[place]) : columns[name];
    });
    return Array.from({ length: names.length ? lists[0].length : 0 }, (_, i) =>
      Object.fromEntries(names.map((name, at) => [name, lists[at][i]])));
  };
  const format = (value, digits) => {
    if (value === null || value === undefined) return "";
    if (value === true) return "yes";
    if (value === false) return "no";
    if (typeof value !== "number" || digits === null) return String(value);
    return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  };

  class Section {
    constructor(section) {
      this.name = section.name;
      this.filters = section.filters;
      this.drawings = section.drawings;
      this.all = {};
      for (const [name, columns] of Object.entries(section.data)) this.all[name] = rowsOf(columns);
      this.chosen = {};
      this.figures = section.figures.map((figure) => new Figure(this, figure));
      this.tables = section.tables.map((table) => new Table(this, table));
      if (this.filters.length) this.makeFilters();
      if (this.drawings) this.draw(this.linked() ?? this.drawings.first);
      this.update();
    }

    // -- what of the data is shown

    makeFilters() {
      const form = document.querySelector(`form[data-section="${this.name}"]`);
      for (const filter of this.filters) {
        const values = [...new Set(Object.values(this.all).flat()
          .filter((row) => filter.column in row).map((row) => row[filter.column]))];
        form.append(this.makeFilter(filter, values));
      }
      this.count = document.createElement("output");
      form.append(this.count);
      form.addEventListener("submit", (event) => event.preventDefault());
      form.addEventListener("change", () => { this.read(form); this.update(); });
      this.read(form);
    }

    makeFilter(filter, values) {
      const box = document.createElement("fieldset");
      const legend = document.createElement("legend");
      legend.textContent = filter.label;
      if (filter.kind === "one") {
        const select = document.createElement("select");
        select.name = filter.column;
        select.setAttribute("aria-label", filter.label);
        for (const value of values) select.add(new Option(value, JSON.stringify(value)));
        box.append(legend, select);
        return box;
      }
      if (filter.kind === "many") box.append(legend);
      for (const value of filter.kind === "flag" ? [true] : values) {
        const label = document.createElement("label");
        const input = document.createElement("input");
        Object.assign(input, { type: "checkbox", name: filter.column, value: JSON.stringify(value) });
        input.checked = filter.kind === "many";
        label.append(input, filter.kind === "flag" ? filter.label : String(value));
        box.append(label);
      }
      return box;
    }

    read(form) {
      this.chosen = {};
      const given = new FormData(form);
      for (const { column, kind } of this.filters) {
        const values = given.getAll(column).map((text) => JSON.parse(text));
        if (kind !== "flag" || values.length) this.chosen[column] = new Set(values);
      }
    }

    rows(name) {
      if (this.drawings && name === this.drawings.data) return this.drawn;
      const filters = Object.entries(this.chosen);
      return this.all[name].filter((row) =>
        filters.every(([column, values]) => !(column in row) || values.has(row[column])));
    }

    update() {
      for (const part of [...this.figures, ...this.tables]) part.update();
      if (!this.count) return;
      const name = Object.keys(this.all).find((each) => this.filters.some(({ column, kind }) =>
        kind !== "one" && column in (this.all[each][0] ?? {})));
      if (name === undefined) return;
      this.count.textContent =
        `${this.rows(name).length.toLocaleString("en")} of ${this.all[name].length.toLocaleString("en")} ${name}`;
    }

    // -- drawings

    linked() {
      const [name, number] = location.hash.slice(1).split("--drawing-");
      return name === this.name && this.drawings.rows[number] ? Number(number) : undefined;
    }

    draw(number) {
      const { parts, rows, told, data } = this.drawings;
      const columns = {};
      parts.forEach((part, i) => {
        const places = unpack(rows[number][i], Object.values(part)[0].length);
        for (const name of Object.keys(part)) columns[name] = places.map((place) => part[name][place]);
      });
      this.drawn = rowsOf(columns).map((row, place) => ({ place, ...row }));
      const values = this.all[told.data].find((row) => row.drawing === number);
      const text = told.headings.map(({ column, text, digits }) =>
        `${text} ${format(values[column], digits)}`).join(" · ");
      for (const figure of this.figures.filter((each) => each.data.includes(data))) {
        figure.tell(text);
        figure.update();
      }
    }

    show(number) {
      history.replaceState(null, "", `#${this.name}--drawing-${number}`);
      this.draw(number);
      const figure = this.figures.find((each) => each.data.includes(this.drawings.data));
      figure.element.scrollIntoView({ behavior: "smooth", block: "nearest" });
    }
  }

  class Figure {
    constructor(section, { name, title, spec, data }) {
      Object.assign(this, { section, name, title, spec, data });
      this.element = document.getElementById(`${section.name}--${name}`);
      this.seen = false;
      this.element.querySelector(".save").addEventListener("click", (event) => {
        if (event.target.dataset.kind) this.save(event.target.dataset.kind);
      });
      observer.observe(this.element);
      owners.set(this.element, this);
    }

    tell(text) {
      const line = this.element.querySelector(".drawn");
      line.hidden = false;
      line.textContent = text;
    }

    values() {
      return Object.fromEntries(this.data.map((name) => [name, this.section.rows(name)]));
    }

    see() {
      if (!this.seen) { this.seen = true; this.embed(); }
    }

    // The last of several that are wanted at once is what is drawn, even after one that failed.
    embed() {
      const draw = () => this.embedNow();
      this.queue = Promise.resolve(this.queue).then(draw, draw);
      return this.queue;
    }

    async embedNow() {
      const theme = structuredClone(content.themes[is(DARK) ? "dark" : "light"]);
      if (is(NARROW)) {
        theme.axis.labelLimit = 96;
        theme.legend.columns = 2;
      }
      const values = this.values();
      const many = Object.values(values).some((rows) => rows.length > MANY);
      this.view?.finalize();
      const { view } = await window.vegaEmbed(this.element.querySelector(".picture"), {
        width: "container",
        autosize: { type: "fit-x", contains: "padding" },
        description: this.title,
        ...this.spec,
        height: this.height(values),
      }, {
        mode: "vega-lite",
        actions: false,
        config: theme,
        renderer: many ? "canvas" : "svg",
        tooltip: { theme: is(DARK) ? "dark" : "light" },
        patch: (vega) => this.fill(vega, values),
      });
      this.view = view;
      view.addEventListener("click", (event, item) => {
        const number = item?.datum?.drawing;
        if (this.section.drawings?.rows[number]) this.section.show(number);
      });
      this.element.dataset.drawn = "true";
    }

    // Data come last: Vega-Lite would copy and hash every row. Vega writes into rows, so each figure
    // has its own.
    fill(vega, values) {
      for (const source of vega.data) {
        if (source.name in values) source.values = values[source.name].map((row) => ({ ...row }));
      }
      return vega;
    }

    // Of a scale of names: as many rows as there are names.
    height(values) {
      const { height, data, encoding } = this.spec;
      if (typeof height === "number") return height;
      return height.step * new Set(values[data.name].map((row) => row[encoding.y.field])).size;
    }

    update() {
      if (this.seen) this.embed();
    }

    async save(kind) {
      this.see();
      await this.queue;
      const file = `${this.section.name}--${this.name}.${kind}`;
      if (kind === "svg" || kind === "png") {
        download(await this.view.toImageURL(kind, kind === "png" ? 2 : 1), file);
        return;
      }
      const values = this.values();
      const text = kind === "json" ? JSON.stringify(values) : csv(values[this.data[0]]);
      const type = kind === "json" ? "application/json" : "text/csv";
      const url = URL.createObjectURL(new Blob([text], { type }));
      download(url, file);
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    }
  }

  class Table {
    constructor(section, { name, data, shown, headings }) {
      Object.assign(this, { section, data, shown, headings, sort: null, down: false });
      this.element = document.getElementById(`${section.name}--${name}`);
      this.more = this.element.querySelector(".more");
      this.heads = [...this.element.querySelectorAll("th")];
      this.heads.forEach((head, i) => {
        const column = headings[i].column;
        const number = section.all[data].some((row) => typeof row[column] === "number");
        head.classList.toggle("number", number);
        headings[i].number = number;
        head.querySelector("button").addEventListener("click", () => {
          this.down = this.sort === column ? !this.down : number;
          this.sort = column;
          this.update();
        });
      });
      this.more.querySelector("button").addEventListener("click", () => {
        this.shown = Infinity;
        this.update();
      });
    }

    update() {
      const rows = [...this.section.rows(this.data)];
      if (this.sort !== null) {
        const sign = this.down ? -1 : 1;
        rows.sort((a, b) => sign * compare(a[this.sort], b[this.sort]));
      }
      this.heads.forEach((head, i) => {
        const here = this.headings[i].column === this.sort;
        head.setAttribute("aria-sort", here ? (this.down ? "descending" : "ascending") : "none");
      });
      const shown = rows.slice(0, this.shown);
      this.element.querySelector("tbody").replaceChildren(...shown.map((row) => this.row(row)));
      this.more.hidden = shown.length === rows.length;
      this.more.querySelector("button").textContent = `show all ${rows.length.toLocaleString("en")} rows`;
    }

    row(values) {
      const row = document.createElement("tr");
      this.headings.forEach(({ column, digits, number }, i) => {
        const cell = row.insertCell();
        const value = values[column];
        const text = format(value, digits);
        cell.classList.toggle("number", number);
        cell.classList.toggle("long", text.length > LONG);
        if (i === 0 && this.section.drawings?.rows[values.drawing]) {
          const button = document.createElement("button");
          button.type = "button";
          button.textContent = text;
          button.title = "draw it";
          button.addEventListener("click", () => this.section.show(values.drawing));
          cell.append(button);
        } else cell.textContent = text;
      });
      return row;
    }
  }

  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === null || a === undefined) return -1;
    if (b === null || b === undefined) return 1;
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  };
  const csv = (rows) => {
    const names = rows.length ? Object.keys(rows[0]) : [];
    const field = (value) => {
      const text = value === null || value === undefined ? "" : String(value);
      return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [names, ...rows.map((row) => names.map((name) => row[name]))]
      .map((fields) => fields.map(field).join(",") + "\n").join("");
  };
  const download = (url, file) => {
    const link = document.createElement("a");
    Object.assign(link, { href: url, download: file });
    link.click();
  };

  const owners = new Map();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) owners.get(entry.target).see();
  }, { rootMargin: "600px" });
  const sections = content.sections.map((section) => new Section(section));
  const again = () => { for (const section of sections) for (const each of section.figures) each.update(); };
  const told = [DARK, NARROW].map((media) => window.matchMedia(media));
  for (const list of told) list.addEventListener("change", again);
  window.addEventListener("beforeprint", () => { for (const each of owners.values()) each.see(); });
  document.documentElement.dataset.ready = "true";
})();
