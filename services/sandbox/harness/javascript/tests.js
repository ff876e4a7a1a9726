// Runs tests of a program that lies in another job: its functions are stubs that ask for a call there. What comes back
// are plain values, compared here.
{
  const fs = require("fs");
  const vm = require("vm");
  const wire = new Wire();
  const {encode, decode} = perilune;
  Object.assign(globalThis, {require, module, exports});

  class ProgramError extends Error {}

  const change = (given, value) => {
    if (Array.isArray(given)) given.splice(0, given.length, ...value);
    else if (given instanceof Map || given instanceof Set) {
      given.clear();
      for (const item of value) given instanceof Map ? given.set(...item) : given.add(item);
    } else {
      for (const key of Object.keys(given)) delete given[key];
      Object.assign(given, value);
    }
  };

  const stub = (name) => (...given) => {
    let coded;
    try {
      coded = given.map(encode);
    } catch (error) {
      end("broken", `the tests give the program what cannot be sent: ${error.message}`);
    }
    wire.send({do: "path", name, arguments: coded}, ">");
    const reply = wire.receive();
    if (reply.raised) throw new ProgramError(reply.raised);
    for (const [i, value] of Object.entries(reply.changed)) change(given[i], decode(value));
    return decode(reply.value);
  };

  const end = (verdict, why = "") => {
    wire.send({verdict, why: why.slice(0, 2000)}, "!");
    process.exit(0);
  };

  const source = fs.readFileSync("tests.js", "utf8");
  const failed = (error) => {
    console.error(error);
    if (error instanceof ProgramError) end("raised", error.message);
    if (error && error.code === "MODULE_NOT_FOUND") end("broken", String(error));
    end("failed", String((error && error.message) || error));
  };
  process.on("uncaughtException", failed);
  process.on("unhandledRejection", failed);
  const {names} = wire.receive();
  let script;
  try {
    script = new vm.Script(source, {filename: "tests.js"});
  } catch (error) {
    end("broken", `the test does not compile: ${error}`);
  }
  // What the program defines, unless this side has it already; what the tests declare themselves comes before both.
  for (const name of names.map(String))
    if (/^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(name) && !(name in globalThis))
      Object.defineProperty(globalThis, name, {value: stub(name), writable: true, configurable: true});
  try {
    script.runInThisContext();
  } catch (error) {
    failed(error);
  }
  process.on("beforeExit", () => end("passed")); // when asynchronous tests have ended too
}
