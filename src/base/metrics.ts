/**
 * Counters, gauges and histograms in Prometheus' text format.
 *
 * Labels are bounded by construction: a label's values are declared, and any
 * other value counts as "other". No name, path or token can become a series.
 */

/** A label and the values it may take. */
export type LabelSet = Readonly<Record<string, readonly string[]>>;

interface Series {
  readonly labels: string;
  value: number;
  buckets?: number[];
  count?: number;
}

type Kind = "counter" | "gauge" | "histogram";

/** Values outside the declared ones are unbounded; no more than this many of them are remembered. */
const MAX_REMEMBERED = 256;

/** One metric with its series. */
export class Metric {
  readonly #series = new Map<string, Series>();
  readonly #byGiven = new Map<string, Series>();

  constructor(
    readonly name: string,
    readonly help: string,
    readonly kind: Kind,
    private readonly labels: LabelSet,
    private readonly bounds: readonly number[] = [],
  ) {
    // Without labels there is one series, and it is there from the start: a counter's first step from nothing to 1 is no increase to Prometheus.
    if (Object.keys(labels).length === 0) this.#at({});
  }

  /** Adds to a counter or gauge. @throws {RangeError} if a counter would run backwards. */
  add(labels: Readonly<Record<string, string>> = {}, amount = 1): void {
    if (this.kind === "counter" && !(amount >= 0))
      throw new RangeError(`${this.name} is a counter and cannot take ${amount}`);
    this.#at(labels).value += amount;
  }

  /** Brings a counter to what is counted elsewhere; one that was counted from the start anew does not run back. */
  reach(value: number, labels: Readonly<Record<string, string>> = {}): void {
    const series = this.#at(labels);
    series.value = Math.max(series.value, value);
  }

  /** Sets a gauge. */
  set(value: number, labels: Readonly<Record<string, string>> = {}): void {
    this.#at(labels).value = value;
  }

  /** Observes a value of a histogram. */
  observe(value: number, labels: Readonly<Record<string, string>> = {}): void {
    const series = this.#at(labels);
    series.buckets ??= this.bounds.map(() => 0);
    series.count = (series.count ?? 0) + 1;
    series.value += value;
    this.bounds.forEach((bound, index) => {
      if (value <= bound) series.buckets![index]!++;
    });
  }

  /** Its lines. */
  text(): string {
    const lines = [`# HELP ${this.name} ${this.help}`, `# TYPE ${this.name} ${this.kind}`];
    for (const series of this.#series.values()) {
      if (this.kind !== "histogram") {
        lines.push(`${this.name}${braced(series.labels)} ${series.value}`);
        continue;
      }
      this.bounds.forEach((bound, index) =>
        lines.push(`${this.name}_bucket${braced(series.labels, `le="${bound}"`)} ${series.buckets?.[index] ?? 0}`),
      );
      lines.push(`${this.name}_bucket${braced(series.labels, 'le="+Inf"')} ${series.count ?? 0}`);
      lines.push(
        `${this.name}_sum${braced(series.labels)} ${series.value}`,
        `${this.name}_count${braced(series.labels)} ${series.count ?? 0}`,
      );
    }
    return lines.join("\n");
  }

  #at(given: Readonly<Record<string, string>>): Series {
    // One series per combination of given values: the label text is put together once.
    let short = "";
    for (const name in this.labels) short += `${given[name] ?? ""}\n`;
    const known = this.#byGiven.get(short);
    if (known !== undefined) return known;
    const labels = Object.entries(this.labels)
      .map(([name, values]) => `${name}="${values.includes(given[name] ?? "") ? given[name] : "other"}"`)
      .join(",");
    let series = this.#series.get(labels);
    if (series === undefined) this.#series.set(labels, (series = { labels, value: 0 }));
    if (this.#byGiven.size < MAX_REMEMBERED) this.#byGiven.set(short, series);
    return series;
  }
}

/** All metrics of a process. */
export class Metrics {
  readonly #metrics: Metric[] = [];

  /** @param name ends in _total. */
  counter(name: string, help: string, labels: LabelSet = {}): Metric {
    return this.#add(new Metric(name, help, "counter", labels));
  }

  /** A value that goes up and down. */
  gauge(name: string, help: string, labels: LabelSet = {}): Metric {
    return this.#add(new Metric(name, help, "gauge", labels));
  }

  /** @param bounds upper bounds of the buckets, ascending. */
  histogram(name: string, help: string, bounds: readonly number[], labels: LabelSet = {}): Metric {
    return this.#add(new Metric(name, help, "histogram", labels, bounds));
  }

  /** The exposition, version 0.0.4. */
  text(): string {
    return `${this.#metrics.map((metric) => metric.text()).join("\n")}\n`;
  }

  /** @throws {RangeError} on a name that is taken: a scrape with one name twice is refused whole. */
  #add(metric: Metric): Metric {
    if (this.#metrics.some(({ name }) => name === metric.name))
      throw new RangeError(`${metric.name} is declared twice`);
    this.#metrics.push(metric);
    return metric;
  }
}

function braced(...labels: readonly string[]): string {
  const joined = labels.filter((label) => label !== "").join(",");
  return joined === "" ? "" : `{${joined}}`;
}
