// A database in WebAssembly that is there at once: SQLite (sql.js) with everything in its linear memory, taken once,
// and restored lazily by every process that starts afterwards.
//
//   npm install sql.js minorfault
//   node examples/sqlite.mjs [rows]
//
// Three processes get to the same first answer: one runs the SQL that makes the database, one loads the database file
// (sql.js's own way: read all of it, copy it into the module's file system), one attaches a snapshot of the memory and loads
// the pages that the query touches.

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { attachMemory, growTo, snapshotMemory } from "minorfault/wasm";

const require = createRequire(import.meta.url);
const QUERY = "SELECT name || ' ' || amount FROM item WHERE name = 'item 4711'";

const statements = (rows) => [
  "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, amount REAL, note TEXT)",
  `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
   INSERT INTO item SELECT i, 'item ' || i, i * 1.25, hex(zeroblob(100)) FROM n`,
  "CREATE INDEX item_name ON item (name)",
];

/** sql.js, with the WebAssembly memory that it keeps to itself otherwise; grown before sql.js looks at it. */
async function startSqlite(byteLength = 0) {
  const code = readFileSync(require.resolve("sql.js/dist/sql-wasm.wasm"));
  let memory;
  const SQL = await require("sql.js")({
    instantiateWasm(imports, receive) {
      const module = new WebAssembly.Module(code);
      const instance = new WebAssembly.Instance(module, imports);
      memory = Object.values(instance.exports).find((item) => item instanceof WebAssembly.Memory);
      growTo(memory, byteLength);
      receive(instance, module);
      return instance.exports;
    },
  });
  return { SQL, memory };
}

/** The functions of SQLite's C interface that this needs, over addresses in the module's memory. */
function sqlite({ SQL, memory }) {
  const text = (words) => SQL.stringToNewUTF8(words);
  const pointer = () => new DataView(memory.buffer);
  const check = (code) => {
    if (code !== 0) throw new Error(`SQLite answered ${code}`);
  };
  return {
    open() {
      const place = SQL._malloc(4);
      check(SQL._sqlite3_open(text(":memory:"), place));
      return pointer().getUint32(place, true);
    },
    run: (db, sql) => check(SQL._sqlite3_exec(db, text(sql), 0, 0, 0)),
    first(db, sql) {
      const place = SQL._malloc(4);
      check(SQL._sqlite3_prepare_v2(db, text(sql), -1, place, 0));
      const statement = pointer().getUint32(place, true);
      SQL._sqlite3_step(statement);
      const answer = SQL.UTF8ToString(SQL._sqlite3_column_text(statement, 0));
      SQL._sqlite3_finalize(statement);
      return answer;
    },
  };
}

const ways = {
  /** Makes the database by SQL, and keeps it as a file of SQLite and as a snapshot of the memory. */
  async make(folder, rows) {
    const module = await startSqlite();
    const { open, run, first } = sqlite(module);
    const db = open();
    for (const sql of statements(rows)) run(db, sql);
    const report = { ms: performance.now(), answer: first(db, QUERY) };
    const { byteLength, bytesWritten } = await snapshotMemory(module.memory, join(folder, "memory"));
    writeFileSync(join(folder, "state.json"), JSON.stringify({ db, byteLength }));
    const copy = new module.SQL.Database();
    for (const sql of statements(rows)) copy.run(sql);
    writeFileSync(join(folder, "file.sqlite"), copy.export());
    return { ...report, bytes: bytesWritten };
  },

  /** sql.js's own way to a database that exists. */
  async load(folder) {
    const { SQL } = await startSqlite();
    const db = new SQL.Database(readFileSync(join(folder, "file.sqlite")));
    const answer = db.exec(QUERY)[0].values[0][0];
    return { ms: performance.now(), answer, bytes: readFileSync(join(folder, "file.sqlite")).length };
  },

  async attach(folder) {
    const { db, byteLength } = JSON.parse(readFileSync(join(folder, "state.json"), "utf8"));
    const module = await startSqlite(byteLength);
    const lazy = await attachMemory(module.memory, join(folder, "memory"));
    const answer = sqlite(module).first(db, QUERY);
    const report = { ms: performance.now(), answer, bytes: lazy.resident().bytes };
    await lazy.close();
    return report;
  },
};

const [way = "200000", ...rest] = process.argv.slice(2);
if (way in ways) {
  console.log(JSON.stringify(await ways[way](...rest)));
} else {
  const folder = mkdtempSync(join(tmpdir(), "minorfault-sqlite-"));
  const run = (...args) =>
    JSON.parse(
      execFileSync(process.execPath, [fileURLToPath(import.meta.url), ...args], { encoding: "utf8" }),
    );
  try {
    const [make, load, attach] = [run("make", folder, way), run("load", folder), run("attach", folder)];
    const row = (name, { ms, answer, bytes }) =>
      console.log(
        `${name.padEnd(34)} ${ms.toFixed(0).padStart(6)} ms  ${(bytes / 2 ** 20).toFixed(1).padStart(6)} MiB  ${answer}`,
      );
    console.log(`${way} rows: from the start of the process to the first answer, and bytes brought for it`);
    row("made by SQL", make);
    row("database file loaded (sql.js)", load);
    row("memory attached (minorfault)", attach);
    console.log(
      `attached ${(make.ms / attach.ms).toFixed(1)} × sooner than made, ${(load.ms / attach.ms).toFixed(1)} × sooner than loaded`,
    );
  } finally {
    rmSync(folder, { recursive: true });
  }
}
