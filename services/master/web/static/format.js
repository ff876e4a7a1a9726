// Figures and names for readers.

/** About three digits: 0.00123, 43.2, 12,346; 1.2e-5 for what is smaller. */
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  const digits = size === 0 ? 0 : Math.max(0, 2 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en", { maximumFractionDigits: digits });
}

export const percent = (share) => `${(share * 100).toFixed(1)} %`;

export const count = (value) => Number(value ?? 0).toLocaleString("en");

/** 125 → 2:05, 7380 → 2 h 03 min. */
export function duration(seconds) {
  const whole = Math.floor(seconds ?? 0);
  const two = (value) => String(value).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Nanoseconds since 1970, as protobuf's JSON writes them, to a Date. */
export const dateOf = (nanoseconds) => new Date(Number(nanoseconds ?? 0) / 1e6);

export const dateAndTime = (date) =>
  date.toLocaleString("en", { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hour12: false });

export const clock = (date) => date.toLocaleTimeString("en", { hour12: false });

/** RUN_STATE_FINISHED → finished. */
export const stateOf = (run) => (run.state ?? "RUN_STATE_UNSPECIFIED").replace("RUN_STATE_", "").toLowerCase();

/** A run's recipe as an object; empty if this is no JSON object. */
export function recipeOf(run) {
  try {
    return Object(JSON.parse(run.recipeJson));
  } catch {
    return {};
  }
}

export const isActive = (run) => ["pending", "starting", "running", "stopping"].includes(stateOf(run));

export const versionOf = (policy) => Number(policy?.number ?? 0);

/** num_tokens → num tokens. */
export const words = (name) => name.replaceAll("_", " ");
