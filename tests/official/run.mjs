// node run.mjs suite|typescript|python local|minio
// node run.mjs suite replicas
//
// The official conformance suite, or an official client, against the server; with "replicas", against three on MinIO, behind
// nginx, which sends each request to another one. Prints what failed, then one line of
// counts. HEADWATER_BINARY names the binary; HEADWATER_SERVER (a JSON array that contains "{port}") any other server.
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { Replicas, Server, startMinio, temporaryDirectory } from "./server.mjs"

/** What 0.3.6 has. Fewer would mean that something was left out. */
const SUITE_TESTS = 338
const REPLICAS = 3

const here = import.meta.dirname
const [what, store] = process.argv.slice(2)
const stores = what === "suite" ? ["local", "minio", "replicas"] : ["local", "minio"]
if (!["suite", "typescript", "python"].includes(what) || !stores.includes(store)) {
  console.error("usage: node run.mjs suite|typescript|python local|minio, or suite replicas")
  process.exit(2)
}

function run(command, args, env) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { cwd: here, env: { ...process.env, ...env }, stdio: "inherit" })
    child.on("error", fail)
    child.on("exit", (code, signal) => done(code ?? signal))
  })
}

async function vitest(file, env) {
  const report = join(temporaryDirectory(), "report.json")
  // The suite names its own limits where time matters; elsewhere a slow machine is no failure.
  const reporters = ["--testTimeout=30000", "--reporter=json", `--outputFile=${report}`, "--reporter=dot"]
  await run(join(here, "node_modules/.bin/vitest"), ["run", file, ...reporters], env)
  if (!existsSync(report)) throw new Error("vitest has written no report")
  return JSON.parse(readFileSync(report, "utf8"))
}

/** Puts every test where it belongs. A file that failed as a whole counts as a failure of its own. */
function judge(report, expectations) {
  const verdict = { passed: [], failed: [], skipped: [], expected: [], surprises: [] }
  for (const file of report.testResults) {
    if (file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed")) {
      verdict.failed.push({ fullName: file.name, failureMessages: [file.message] })
    }
    for (const test of file.assertionResults) {
      const expectation = expectations.find(({ tests }) => new RegExp(tests).test(test.fullName))
      if (test.status === "passed") {
        verdict.passed.push(test)
        if (expectation) verdict.surprises.push(test)
      } else if (test.status !== "failed") verdict.skipped.push(test)
      else if (expectation) verdict.expected.push({ ...test, why: expectation.why })
      else verdict.failed.push(test)
    }
  }
  return verdict
}

/** An expectation that nothing meets any more would hide the next failure. */
function outdated(verdict, expectations) {
  return expectations.filter(({ tests }) => !verdict.expected.some((test) => new RegExp(tests).test(test.fullName)))
}

function tell({ passed, failed, skipped, expected, surprises }) {
  for (const test of failed) console.log(`FAILED ${test.fullName}\n${indent(test.failureMessages.join("\n"))}`)
  for (const test of skipped) console.log(`skipped ${test.fullName}`)
  for (const test of surprises) console.log(`passes, though expected to fail: ${test.fullName}`)
  for (const [why, tests] of byReason(expected)) console.log(`failed as expected: ${tests.length} (${why})`)
  const counts = `${passed.length} passed, ${failed.length} failed, ${skipped.length} skipped`
  console.log(`${counts}, ${expected.length} failed as expected`)
  return failed.length === 0 ? 0 : 1
}

function byReason(tests) {
  const reasons = new Map()
  for (const test of tests) reasons.set(test.why, [...(reasons.get(test.why) ?? []), test])
  return reasons
}

const indent = (text) => text.split("\n").slice(0, 12).map((line) => `    ${line}`).join("\n")

async function suite(command) {
  const server = store === "replicas" ? await Replicas.start(command, REPLICAS) : await Server.start(command)
  try {
    const expectations = JSON.parse(readFileSync(join(here, "expected-failures.json"), "utf8"))
    const report = await vitest("conformance.test.ts", { HEADWATER_URL: server.url })
    const verdict = judge(report, expectations)
    for (const { tests } of outdated(verdict, expectations)) {
      const failureMessages = ["every test of it passes: remove it from expected-failures.json"]
      verdict.failed.push({ fullName: `the expectation ${tests}`, failureMessages })
    }
    const seen = report.testResults.reduce((sum, file) => sum + file.assertionResults.length, 0)
    if (seen !== SUITE_TESTS) {
      const failureMessages = [`${seen} tests were seen, ${SUITE_TESTS} are in the pinned version`]
      verdict.failed.push({ fullName: "the suite is whole", failureMessages })
    }
    const code = tell(verdict)
    if (code !== 0) console.log(`server:\n${indent(server.output.split("\n").slice(-12).join("\n"))}`)
    return code
  } finally {
    await server.kill()
  }
}

async function typescript(command) {
  return tell(judge(await vitest("client.test.ts", { HEADWATER_SERVER: JSON.stringify(command) }), []))
}

function python(command) {
  const interpreter = process.env.HEADWATER_PYTHON ?? "python3"
  return run(interpreter, ["client.py"], { HEADWATER_SERVER: JSON.stringify(command) })
}

let minio
async function serverCommand() {
  if (process.env.HEADWATER_SERVER) return JSON.parse(process.env.HEADWATER_SERVER)
  const binary = process.env.HEADWATER_BINARY ?? resolve(here, "../../target/debug/headwater")
  // The suite waits for a long-poll to end empty within vitest's five seconds.
  const serve = [binary, "serve", "--listen", "127.0.0.1:{port}", "--long-poll-hold", "2s"]
  if (store !== "local") {
    minio = await startMinio()
    return [...serve, ...minio.flags]
  }
  const bucket = join(temporaryDirectory(), "bucket")
  mkdirSync(bucket)
  return [...serve, "--store", `local:${bucket}`]
}

let code = 1
try {
  code = await { suite, typescript, python }[what](await serverCommand())
} catch (error) {
  console.error(error)
} finally {
  await minio?.process.end()
}
process.exit(code)
