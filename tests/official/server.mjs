// Starts and ends the processes that the official suite and clients talk to.
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, mkdirSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { homedir, tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"

const READY_WITHIN = 60_000

export function freePort() {
  return new Promise((done, fail) => {
    const listener = createServer()
    listener.on("error", fail)
    listener.listen(0, "127.0.0.1", () => {
      const { port } = listener.address()
      listener.close(() => done(port))
    })
  })
}

/** A process that keeps its output, to be shown when something fails. */
export class Process {
  #child
  #exited
  output = ""

  constructor(command, args, env = {}) {
    this.#child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] })
    process.once("exit", () => this.#child.kill("SIGKILL"))
    this.#exited = new Promise((done) => {
      this.#child.on("exit", done)
      this.#child.on("error", (error) => {
        this.output += `${command}: ${error.message}\n`
        done()
      })
    })
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.on("data", (text) => {
        this.output = (this.output + text).slice(-100_000)
      })
    }
  }

  get running() {
    return this.#child.exitCode === null && this.#child.signalCode === null && this.#child.pid !== undefined
  }

  async end(signal = "SIGKILL") {
    if (this.running) this.#child.kill(signal)
    await this.#exited
  }
}

async function answers(url, process) {
  const deadline = Date.now() + READY_WITHIN
  while (Date.now() < deadline && process.running) {
    try {
      const response = await fetch(url)
      await response.arrayBuffer()
      if (response.status < 500) return
    } catch {
      // Not listening yet.
    }
    await new Promise((done) => setTimeout(done, 50))
  }
  await process.end()
  throw new Error(`${url} does not answer:\n${process.output}`)
}

/** A server at a fixed port, so that clients find it again after a restart. `command` contains "{port}". */
export class Server {
  #command
  #process
  port

  static async start(command) {
    const server = new Server()
    server.#command = command
    server.port = await freePort()
    await server.restart()
    return server
  }

  get url() {
    return `http://127.0.0.1:${this.port}`
  }

  get output() {
    return this.#process.output
  }

  async restart() {
    const [program, ...args] = this.#command.map((word) => word.replaceAll("{port}", String(this.port)))
    const before = this.#process?.output ?? ""
    this.#process = new Process(program, args)
    this.#process.output = before
    await answers(`${this.url}/readyz`, this.#process)
  }

  /** As a crash would: nothing is flushed, nobody is told. */
  kill() {
    return this.#process.end("SIGKILL")
  }
}

/** Several servers of one bucket behind nginx, which sends each request to another one. */
export class Replicas {
  #replicas
  #nginx
  port

  static async start(command, count) {
    const group = new Replicas()
    // So many shards that each has some.
    const each = [...command, "--heartbeat-interval", "1s", "--shards", "32"]
    group.#replicas = await Promise.all(Array.from({ length: count }, () => Server.start(each)))
    try {
      await group.#settled()
      await group.#balance()
    } catch (error) {
      await group.kill()
      throw error
    }
    return group
  }

  get url() {
    return `http://127.0.0.1:${this.port}`
  }

  get output() {
    return this.#replicas.map((replica) => replica.output).join("\n")
  }

  /** Returns when all of them know the same homes, on each of them. */
  async #settled() {
    const deadline = Date.now() + READY_WITHIN
    const homes = async (replica) => {
      const status = await (await fetch(`${replica.url}/__headwater/cluster`)).json()
      return status.shards.map((shard) => shard.home)
    }
    for (;;) {
      const seen = await Promise.all(this.#replicas.map(homes))
      const agree = seen.every((all) => String(all) === String(seen[0]))
      if (agree && new Set(seen[0]).size === this.#replicas.length) return
      if (Date.now() > deadline) throw new Error(`the replicas do not agree: ${JSON.stringify(seen)}`)
      await new Promise((done) => setTimeout(done, 100))
    }
  }

  async #balance() {
    const [directory, port] = [temporaryDirectory(), await freePort()]
    this.port = port
    const paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    const conf = `
      daemon off;
      pid ${directory}/pid;
      events { worker_connections 4096; }
      http {
        access_log off;
        ${paths.map((path) => `${path}_temp_path ${directory}/${path};`).join("\n")}
        upstream replicas {
          ${this.#replicas.map((replica) => `server 127.0.0.1:${replica.port};`).join("\n")}
          keepalive 64;
        }
        server {
          listen 127.0.0.1:${port};
          client_max_body_size 0;
          location / {
            proxy_pass http://replicas;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffering off;
            proxy_request_buffering off;
          }
        }
      }`
    const file = join(directory, "nginx.conf")
    writeFileSync(file, conf)
    // Debian has it where only administrators look.
    const binary = ["/usr/sbin/nginx"].find((path) => existsSync(path)) ?? "nginx"
    this.#nginx = new Process(binary, ["-p", directory, "-c", file, "-e", "stderr"])
    await answers(`${this.url}/readyz`, this.#nginx)
  }

  async kill() {
    await this.#nginx?.end("SIGTERM")
    await Promise.all(this.#replicas.map((replica) => replica.kill()))
  }
}

/** The server command of the environment, as the tests of the clients find it. */
export function serverCommand() {
  const command = process.env.HEADWATER_SERVER
  if (!command) throw new Error("HEADWATER_SERVER is not set: start this through run.mjs")
  return JSON.parse(command)
}

/** A directory for the life of this process. */
export function temporaryDirectory() {
  const directory = mkdtempSync(join(tmpdir(), "headwater-official-"))
  process.on("exit", () => rmSync(directory, { recursive: true, force: true }))
  return directory
}

function findMinio() {
  const named = process.env.HEADWATER_MINIO
  const places = [
    resolve(import.meta.dirname, "../../.cache/bin"),
    join(process.env.GOPATH ?? join(homedir(), "go"), "bin"),
    ...(process.env.PATH ?? "").split(delimiter),
  ]
  return named ?? places.map((place) => join(place, "minio")).find((file) => existsSync(file))
}

/** MinIO with one empty bucket: how the server is told of it, and the process. */
export async function startMinio() {
  const binary = findMinio()
  if (!binary) throw new Error("minio is not installed")
  const directory = temporaryDirectory()
  mkdirSync(join(directory, "headwater"))
  const port = await freePort()
  const credentials = { MINIO_ROOT_USER: "headwater", MINIO_ROOT_PASSWORD: "headwater-secret" }
  const env = { ...credentials, MINIO_BROWSER: "off", MINIO_UPDATE: "off" }
  const minio = new Process(binary, ["server", "--quiet", "--address", `127.0.0.1:${port}`, directory], env)
  await answers(`http://127.0.0.1:${port}/headwater`, minio)
  const flags = ["--store", "s3://headwater/official", "--endpoint", `http://127.0.0.1:${port}`, "--region", "us-east-1"]
  const keys = ["--access-key-id", credentials.MINIO_ROOT_USER]
  keys.push("--secret-access-key", credentials.MINIO_ROOT_PASSWORD)
  return { flags: [...flags, ...keys], process: minio }
}
