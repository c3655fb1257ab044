// The official TypeScript client, writing and tailing for real: the server is killed and started again meanwhile.
import { DurableStream, IdempotentProducer, StaleEpochError, stream } from "@durable-streams/client"
import { afterAll, beforeAll, describe, expect, test } from "vitest"
import { Server, serverCommand } from "./server.mjs"

const MESSAGES = 400
const KILLS = 3

let server: Server
beforeAll(async () => {
  server = await Server.start(serverCommand())
}, 90_000)
afterAll(() => server.kill())

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms))
const streamUrl = (name: string) => `${server.url}/v1/stream/client/${name}-${Date.now()}`

/** The producer leaves retries to its fetch; the client's own backoff would hide the 403 and 409 it has to see. */
const retryingFetch: typeof fetch = async (...request) => {
  for (;;) {
    try {
      const response = await fetch(...request)
      if (response.status !== 429 && response.status < 500) return response
      await response.arrayBuffer()
    } catch {
      // The server is away.
    }
    await pause(50)
  }
}

type Live = "long-poll" | "sse"

/** Reads until the stream is closed. Where the client gives up, goes on at the last offset, as an application does. */
async function tail(url: string, live: Live): Promise<{ items: number[]; reopened: number }> {
  const items: number[] = []
  let offset = "-1"
  for (let reopened = 0; ; reopened++) {
    let finished = false
    try {
      const session = await stream<number>({ url, offset, live, json: true, sseResilience: { logWarnings: false } })
      session.subscribeJson((batch) => {
        items.push(...batch.items)
        offset = batch.offset
      })
      await session.closed
      // The client says "closed" before it hands out what a last long-poll brought.
      for (let waited = 0; offset !== session.offset && waited < 2000; waited += 5) await pause(5)
      finished = session.streamClosed && offset === session.offset
    } catch {
      // Cut off in the middle of a response.
    }
    if (finished) return { items, reopened }
    await pause(20)
  }
}

async function killNowAndThen(done: Promise<unknown>) {
  let running = true
  void done.finally(() => (running = false))
  let kills = 0
  for (; kills < KILLS && running; kills++) {
    await pause(400)
    await server.kill()
    await pause(200)
    await server.restart()
  }
  return kills
}

test("what is written is read back", async () => {
  const handle = await DurableStream.create({ url: streamUrl("plain"), contentType: "text/plain" })
  await handle.append("one ")
  await handle.append("two")
  expect(await (await handle.stream({ live: false })).text()).toBe("one two")
  const head = await handle.head()
  expect(head.exists).toBe(true)
  expect(head.contentType).toContain("text/plain")
  await handle.delete()
  expect(await DurableStream.head({ url: handle.url })).toMatchObject({ exists: false })
})

describe("through restarts of the server", () => {
  test(`${MESSAGES} messages arrive exactly once and in order, at readers of both kinds`, { timeout: 120_000 }, async () => {
    const url = streamUrl("restarts")
    const handle = await DurableStream.create({ url, contentType: "application/json" })
    const readers = [tail(url, "long-poll"), tail(url, "sse"), tail(url, "long-poll"), tail(url, "sse")]
    const errors: Error[] = []
    const onError = (error: Error) => errors.push(error)
    const options = { lingerMs: 2, maxInFlight: 5, fetch: retryingFetch, onError }
    const producer = new IdempotentProducer(handle, "writer", options)
    const write = async () => {
      for (let n = 0; n < MESSAGES; n++) {
        producer.append(JSON.stringify(n))
        await pause(5)
      }
      await producer.flush()
      await producer.close(JSON.stringify(MESSAGES))
    }
    const written = write()
    const kills = await killNowAndThen(written)
    await written
    expect(errors).toEqual([])
    expect(kills).toBe(KILLS)

    const all = Array.from({ length: MESSAGES + 1 }, (_, n) => n)
    for (const { items } of await Promise.all(readers)) expect(items).toEqual(all)
    expect(await (await handle.stream({ live: false })).json()).toEqual(all)
  })

  test("bytes of a binary stream arrive unchanged", { timeout: 60_000 }, async () => {
    const url = streamUrl("binary")
    const handle = await DurableStream.create({ url, contentType: "application/octet-stream" })
    const producer = new IdempotentProducer(handle, "writer", { maxInFlight: 3, fetch: retryingFetch })
    const parts = Array.from({ length: 40 }, (_, n) => new Uint8Array(1000).fill(n))
    const write = async () => {
      for (const part of parts) {
        producer.append(part)
        await pause(20)
      }
      await producer.close()
    }
    const written = write()
    await killNowAndThen(written)
    await written
    expect(Buffer.from(await (await handle.stream({ live: false })).body())).toEqual(Buffer.concat(parts))
  })
})

test("a producer that was replaced is told so, also after a restart", { timeout: 60_000 }, async () => {
  const handle = await DurableStream.create({ url: streamUrl("fence"), contentType: "application/json" })
  const errors: Error[] = []
  const producer = (epoch: number) =>
    new IdempotentProducer(handle, "writer", { epoch, fetch: retryingFetch, onError: (error) => errors.push(error) })
  const [old, successor] = [producer(0), producer(1)]
  old.append(`"old"`)
  await old.flush()
  successor.append(`"new"`)
  await successor.flush()
  await server.kill()
  await server.restart()
  old.append(`"too late"`)
  await old.flush().catch(() => {})
  expect(errors).toHaveLength(1)
  expect(errors[0]).toBeInstanceOf(StaleEpochError)
  expect(await (await handle.stream({ live: false })).json()).toEqual(["old", "new"])
})
