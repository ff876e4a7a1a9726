// What both sides of the JavaScript harness share: tagged JSON, one value a line, on descriptors 0 and 1.
// It is laid in front of candidate.js and of tests.js.
"use strict";
const {Wire, perilune} = (() => {
  const fs = require("fs");
  const {isDeepStrictEqual} = require("util");
  // Taken before any program runs: what it patches later is not what we use.
  const {parse, stringify} = JSON;
  const isArray = Array.isArray;

  class Wire {
    constructor() {
      this.rest = Buffer.alloc(0);
      for (const method of ["log", "info", "debug"]) console[method] = (...said) => console.error(...said);
      process.stdout.write = (...said) => process.stderr.write(...said);
    }

    send(message, prefix = "") {
      const line = Buffer.from(prefix + stringify(message) + "\n");
      for (let at = 0; at < line.length; ) at += this.retry(() => fs.writeSync(1, line, at));
    }

    receive() {
      const chunk = Buffer.alloc(1 << 16);
      let end;
      while ((end = this.rest.indexOf(10)) < 0) {
        const size = this.retry(() => fs.readSync(0, chunk, 0, chunk.length, null));
        if (!size) process.exit(0); // the sandbox has hung up
        this.rest = Buffer.concat([this.rest, chunk.subarray(0, size)]);
      }
      const line = this.rest.subarray(0, end).toString();
      this.rest = this.rest.subarray(end + 1);
      return parse(line);
    }

    retry(work) {
      for (;;) {
        try {
          return work();
        } catch (error) {
          if (error.code !== "EAGAIN") throw error;
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
        }
      }
    }
  }

  const tagged = (kind, is) => ({"#": kind, is});

  function encode(value) {
    switch (typeof value) {
      case "undefined":
        return tagged("undefined");
      case "bigint":
        return tagged("bigint", String(value));
      case "number":
        return Number.isFinite(value) && !Object.is(value, -0) ? value : tagged("float", Object.is(value, -0) ? "-0" : String(value).replace("Infinity", "inf").replace("NaN", "nan"));
      case "boolean":
      case "string":
        return value;
      case "object":
        break;
      default:
        throw new TypeError(`a ${typeof value} cannot be sent`);
    }
    if (value === null) return null;
    if (isArray(value)) return Array.from(value, encode);
    if (value instanceof Map) return tagged("map", Array.from(value, ([key, item]) => [encode(key), encode(item)]));
    if (value instanceof Set) return tagged("set", Array.from(value, encode));
    return tagged("dict", Object.keys(value).map((key) => [key, encode(value[key])]));
  }

  function decode(value) {
    if (isArray(value)) return value.map(decode);
    if (value === null || typeof value !== "object") return value;
    const {"#": kind, is} = value;
    switch (kind) {
      case "undefined":
        return undefined;
      case "bigint":
        return BigInt(is);
      case "float":
        return {inf: Infinity, "-inf": -Infinity, nan: NaN, "-0": -0}[is];
      case "map":
        return new Map(is.map(([key, item]) => [decode(key), decode(item)]));
      case "set":
        return new Set(is.map(decode));
      case "dict": {
        const made = {};
        for (const [key, item] of is)
          Object.defineProperty(made, key, {value: decode(item), enumerable: true, configurable: true, writable: true});
        return made;
      }
      default:
        throw new TypeError(`no value has the tag ${kind}`);
    }
  }

  // What a call changed of its arguments in place, by position.
  function changed(before, values) {
    const found = {};
    values.forEach((value, i) => {
      if (value !== null && typeof value === "object") {
        const after = encode(value);
        if (!isDeepStrictEqual(after, before[i])) found[i] = after;
      }
    });
    return found;
  }

  return {Wire, perilune: {encode, decode, changed}};
})();
