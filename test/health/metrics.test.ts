import { expect, test } from "bun:test";
import { Metrics } from "../../src/base/metrics.ts";

test("the exposition is Prometheus' text format", () => {
  const metrics = new Metrics();
  const requests = metrics.counter("holdfast_requests_total", "Requests.", { verb: ["get", "list"] });
  metrics.gauge("holdfast_up", "Up.").set(0.5);
  const seconds = metrics.histogram("holdfast_seconds", "Seconds.", [0.1, 1], { verb: ["get"] });
  requests.add({ verb: "get" });
  requests.add({ verb: "get" }, 2);
  for (const value of [0.05, 0.1, 0.5, 7]) seconds.observe(value, { verb: "get" });
  expect(metrics.text().split("\n")).toEqual([
    "# HELP holdfast_requests_total Requests.",
    "# TYPE holdfast_requests_total counter",
    'holdfast_requests_total{verb="get"} 3',
    "# HELP holdfast_up Up.",
    "# TYPE holdfast_up gauge",
    "holdfast_up 0.5",
    "# HELP holdfast_seconds Seconds.",
    "# TYPE holdfast_seconds histogram",
    'holdfast_seconds_bucket{verb="get",le="0.1"} 2',
    'holdfast_seconds_bucket{verb="get",le="1"} 3',
    'holdfast_seconds_bucket{verb="get",le="+Inf"} 4',
    'holdfast_seconds_sum{verb="get"} 7.65',
    'holdfast_seconds_count{verb="get"} 4',
    "",
  ]);
});

test('a label value that was not declared counts as "other", whatever it is', () => {
  const metrics = new Metrics();
  const requests = metrics.counter("c_total", "C.", { verb: ["get"] });
  for (const verb of ["brew", '"} evil 1', "", "x".repeat(1_000)]) requests.add({ verb });
  requests.add();
  expect(metrics.text().split("\n").slice(2, -1)).toEqual(['c_total{verb="other"} 5']);
});

test("a metric without labels is there from the start, at 0", () => {
  const metrics = new Metrics();
  metrics.counter("c_total", "C.");
  metrics.histogram("h", "H.", [1]);
  expect(metrics.text()).toContain("\nc_total 0\n");
  expect(metrics.text()).toContain('\nh_bucket{le="+Inf"} 0\n');
});

test("a counter never runs backwards and a name is declared once", () => {
  const metrics = new Metrics();
  const counter = metrics.counter("c_total", "C.");
  expect(() => counter.add({}, -1)).toThrow(RangeError);
  expect(() => metrics.gauge("c_total", "C.")).toThrow(RangeError);
});
