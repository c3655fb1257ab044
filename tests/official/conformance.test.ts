// The whole official suite, subscriptions included, against a server that is already there.
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

const baseUrl = process.env.HEADWATER_URL
if (!baseUrl) throw new Error("HEADWATER_URL is not set: start this through run.mjs")

runConformanceTests({ baseUrl, subscriptions: true })
