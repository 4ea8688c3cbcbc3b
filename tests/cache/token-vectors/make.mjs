// npm install && npm run make     writes vectors.json anew (byte for byte the same with the same keys.json)
// npm run make -- --new-keys      also makes new keys
//
// Tokens signed by node's `jose`, for kingpost to reproduce byte for byte and to judge. The keys are for tests only.
import { generateKeyPairSync, createPrivateKey, createPublicKey, createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { CompactSign, SignJWT, jwtVerify } from "jose";

const here = (name) => new URL(name, import.meta.url);
const CLAIM = "https://jwt.attic.rs/v1";
const NOW = 1780000000;

if (!existsSync(here("keys.json")) || process.argv.includes("--new-keys")) {
  const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(here("keys.json"), JSON.stringify({
    comment: "for tests only; make.mjs made them",
    hs256: createHash("sha512").update("kingpost token vectors").digest("base64"),
    hs256_short: Buffer.from("hello world").toString("base64"),
    rs256_pkcs1: pair.privateKey.export({ type: "pkcs1", format: "pem" }),
    rs256_pkcs8: pair.privateKey.export({ type: "pkcs8", format: "pem" }),
    rs256_public: pair.publicKey.export({ type: "spki", format: "pem" }),
  }, null, 1) + "\n");
}
const keys = JSON.parse(readFileSync(here("keys.json"), "utf8"));
const rsa = createPrivateKey(keys.rs256_pkcs8);
const rsaPublic = createPublicKey(keys.rs256_public);
const secret = (name) => Buffer.from(keys[name], "base64");

// What a person asks for, and the claims that must come out, written by hand from facts about Attic.
const requests = {
  "pull one cache for 15 minutes": {
    subject: "ci", grants: { main: ["pull"] }, lifetime: 900, backdate: 60,
    claims: { sub: "ci", nbf: NOW - 60, exp: NOW + 900, [CLAIM]: { caches: { main: { r: 1 } } } },
  },
  "pull all, push one": {
    subject: "runner-1", grants: { "*": ["pull"], main: ["push"] }, lifetime: 3600, backdate: 0,
    claims: { sub: "runner-1", nbf: NOW, exp: NOW + 3600,
      [CLAIM]: { caches: { main: { r: 1, w: 1 }, "*": { r: 1 } } } },
  },
  "overlapping namespaces": {
    subject: "bot", grants: { "ci-*": ["pull"], "*-x": ["push"] }, lifetime: 60, backdate: 30,
    claims: { sub: "bot", nbf: NOW - 30, exp: NOW + 60,
      [CLAIM]: { caches: { "ci-*-x": { r: 1, w: 1 }, "ci-x": { r: 1, w: 1 }, "*-x": { w: 1 }, "ci-*": { r: 1 } } } },
  },
  "every permission, bound": {
    subject: "root", issuer: "https://id.example.org", audiences: ["attic", "other"], lifetime: 120, backdate: 0,
    grants: { main: ["pull", "push", "delete", "create-cache", "configure-cache", "configure-cache-retention", "destroy-cache"] },
    claims: { iss: "https://id.example.org", sub: "root", aud: ["attic", "other"], nbf: NOW, exp: NOW + 120,
      [CLAIM]: { caches: { main: { r: 1, w: 1, d: 1, cc: 1, cr: 1, cq: 1, cd: 1 } } } },
  },
};

const sign = (claims, alg, key, header = {}) => new SignJWT(claims).setProtectedHeader({ alg, typ: "JWT", ...header }).sign(key);
const raw = (text, alg, key) => new CompactSign(Buffer.from(text)).setProtectedHeader({ alg, typ: "JWT" }).sign(key);

const minted = [];
for (const [name, { claims, ...request }] of Object.entries(requests)) {
  for (const [alg, key] of [["HS256", secret("hs256")], ["RS256", rsa]]) {
    const token = await sign(claims, alg, key);
    await jwtVerify(token, alg === "HS256" ? key : rsaPublic, { currentDate: new Date(NOW * 1000), clockTolerance: 0 });
    minted.push({ name: `${name}, ${alg}`, alg, now: NOW, request, claims, token });
  }
}
{
  const { claims, ...request } = requests["pull one cache for 15 minutes"];
  minted.push({ name: "a short HS256 key", alg: "HS256", key: "hs256_short", now: NOW, request, claims,
    token: await sign(claims, "HS256", secret("hs256_short")) });
}

// Tokens of others, and what Attic makes of them at NOW with the HS256 key: the bits on `main`, or null for "anonymous".
const good = { caches: { main: { r: 1 } } };
const at = (extra, attic = good) => ({ ...extra, ...(attic === undefined ? {} : { [CLAIM]: attic }) });
const H = secret("hs256");
const judged = [
  ["no times at all", await sign(at({}), "HS256", H), ["r"]],
  ["kid and +JWT are fine", await sign(at({}), "HS256", H, { kid: "k", typ: "at+JWT" }), ["r"]],
  ["exp is now", await sign(at({ exp: NOW }), "HS256", H), ["r"]],
  ["expired a second ago", await sign(at({ exp: NOW - 1 }), "HS256", H), null],
  ["nbf is now", await sign(at({ nbf: NOW }), "HS256", H), ["r"]],
  ["valid in a second", await sign(at({ nbf: NOW + 1 }), "HS256", H), null],
  ["issued in a second", await sign(at({ iat: NOW + 1 }), "HS256", H), null],
  ["issued now", await sign(at({ iat: NOW }), "HS256", H), ["r"]],
  ["another key", await sign(at({}), "HS256", secret("hs256_short")), null],
  ["another algorithm", await sign(at({}), "RS256", rsa), null],
  ["HS512", await sign(at({}), "HS512", H), null],
  ["wrong type", await sign(at({}), "HS256", H, { typ: "JOSE" }), null],
  ["no Attic claim", await sign({ sub: "x" }, "HS256", H), null],
  ["no caches level", await sign({ [CLAIM]: { main: { r: 1 } } }, "HS256", H), null],
  ["booleans instead of bits", await sign(at({}, { caches: { main: { r: true } } }), "HS256", H), null],
  ["a bit of 2", await sign(at({}, { caches: { main: { r: 2 } } }), "HS256", H), null],
  ["a bit of 0", await sign(at({}, { caches: { main: { r: 0, w: 1 } } }), "HS256", H), ["w"]],
  ["an unknown bit", await sign(at({}, { caches: { main: { r: 1, zz: 1 } } }), "HS256", H), ["r"]],
  ["an impossible pattern", await sign(at({}, { caches: { "ma/in": { r: 1 } } }), "HS256", H), null],
  ["the exact entry shadows the wide one", await sign(at({}, { caches: { "*": { r: 1 }, main: { w: 1 } } }), "HS256", H), ["w"]],
  ["the first matching entry wins", await sign(at({}, { caches: { "m*": { r: 1 }, "*": { w: 1 } } }), "HS256", H), ["r"]],
  ["order decides", await sign(at({}, { caches: { "*": { w: 1 }, "m*": { r: 1 } } }), "HS256", H), ["w"]],
  ["no entry matches", await sign(at({}, { caches: { other: { r: 1 } } }), "HS256", H), []],
  ["claims are no object", await raw("[1]", "HS256", H), null],
  ["claims are no JSON", await raw("{", "HS256", H), null],
].map(([name, token, bits]) => ({ name, now: NOW, cache: "main", token, bits }));

writeFileSync(here("vectors.json"), JSON.stringify({ made_by: "make.mjs with node's jose", minted, judged }, null, 1) + "\n");
console.log(`${minted.length} minted, ${judged.length} judged`);
