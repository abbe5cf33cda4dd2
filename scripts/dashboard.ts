/**
 * The Grafana dashboard, from a table: bun scripts/dashboard.ts > docs/monitoring/dashboard.json
 */

interface Panel {
  readonly title: string;
  readonly kind: "stat" | "timeseries";
  readonly unit: string;
  /** Query and what its lines are called. */
  readonly queries: readonly (readonly [string, string])[];
  readonly width: 4 | 6 | 8 | 12;
}

const PANELS: readonly Panel[] = [
  {
    title: "Link",
    kind: "stat",
    unit: "bool_on_off",
    width: 4,
    queries: [['holdfast_upstream_up{instance=~"$node"}', "{{instance}}"]],
  },
  {
    title: "Pods that would not come back",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: [['holdfast_pods{instance=~"$node",comes_back="no"}', "{{instance}}"]],
  },
  {
    title: "Survives without its link",
    kind: "stat",
    unit: "s",
    width: 4,
    queries: [['holdfast_horizon_timestamp_seconds{instance=~"$node"} - time()', "{{instance}}"]],
  },
  {
    title: "Conditions",
    kind: "stat",
    unit: "short",
    width: 4,
    queries: [['sum by (instance) (holdfast_condition{instance=~"$node"})', "{{instance}}"]],
  },
  {
    title: "Without the control plane",
    kind: "stat",
    unit: "s",
    width: 4,
    queries: [['increase(holdfast_offline_seconds_total{instance=~"$node"}[24h])', "{{instance}}, 24 h"]],
  },
  {
    title: "Version",
    kind: "stat",
    unit: "none",
    width: 4,
    queries: [['holdfast_build_info{instance=~"$node"}', "{{version}}"]],
  },
  {
    title: "Answers",
    kind: "timeseries",
    unit: "reqps",
    width: 12,
    queries: [['rate(holdfast_answers_total{instance=~"$node"}[5m])', "{{instance}} {{source}}"]],
  },
  {
    title: "Requests by code",
    kind: "timeseries",
    unit: "reqps",
    width: 12,
    queries: [
      ['sum by (instance, code) (rate(holdfast_requests_total{instance=~"$node"}[5m]))', "{{instance}} {{code}}"],
    ],
  },
  {
    title: "Time to answer, 99th percentile",
    kind: "timeseries",
    unit: "s",
    width: 12,
    queries: [
      [
        'histogram_quantile(0.99, sum by (instance, le) (rate(holdfast_request_duration_seconds_bucket{instance=~"$node"}[5m])))',
        "{{instance}}",
      ],
    ],
  },
  {
    title: "Uplink",
    kind: "timeseries",
    unit: "Bps",
    width: 12,
    queries: [['rate(holdfast_wan_bytes_total{instance=~"$node"}[5m])', "{{instance}} {{direction}}"]],
  },
  {
    title: "Saved by sharing",
    kind: "timeseries",
    unit: "Bps",
    width: 12,
    queries: [['rate(holdfast_shared_bytes_total{instance=~"$node"}[5m])', "{{instance}}"]],
  },
  {
    title: "Age of copies",
    kind: "timeseries",
    unit: "s",
    width: 12,
    queries: [['holdfast_copy_age_seconds{instance=~"$node"}', "{{instance}} {{resource}}"]],
  },
  {
    title: "Memory",
    kind: "timeseries",
    unit: "bytes",
    width: 12,
    queries: [
      ['process_resident_memory_bytes{instance=~"$node",job=~".*holdfast.*"}', "{{instance}} resident"],
      ['holdfast_memory_anonymous_bytes{instance=~"$node"}', "{{instance}} anonymous"],
    ],
  },
  {
    title: "CPU",
    kind: "timeseries",
    unit: "percentunit",
    width: 12,
    queries: [['rate(process_cpu_seconds_total{instance=~"$node",job=~".*holdfast.*"}[5m])', "{{instance}}"]],
  },
  {
    title: "Store",
    kind: "timeseries",
    unit: "bytes",
    width: 12,
    queries: [['holdfast_store_bytes{instance=~"$node"}', "{{instance}}"]],
  },
  {
    title: "Rows written",
    kind: "timeseries",
    unit: "wps",
    width: 12,
    queries: [['rate(holdfast_store_rows_written_total{instance=~"$node"}[15m])', "{{instance}}"]],
  },
  {
    title: "Lists made anew",
    kind: "timeseries",
    unit: "short",
    width: 12,
    queries: [['increase(holdfast_relist_total{instance=~"$node"}[1h])', "{{instance}} {{reason}}"]],
  },
  {
    title: "Certificates end in",
    kind: "timeseries",
    unit: "s",
    width: 12,
    queries: [['holdfast_certificate_expiry_timestamp_seconds{instance=~"$node"} - time()', "{{instance}} {{name}}"]],
  },
];

/** The dashboard as Grafana imports it. */
export function dashboard(): object {
  const datasource = { type: "prometheus", uid: "${datasource}" };
  let [x, y] = [0, 0];
  const panels = PANELS.map(({ title, kind, unit, queries, width }, index) => {
    if (x + width > 24) [x, y] = [0, y + 8];
    const gridPos = { x, y, w: width, h: kind === "stat" ? 4 : 8 };
    x += width;
    if (x >= 24) [x, y] = [0, y + gridPos.h];
    return {
      id: index + 1,
      title,
      type: kind,
      datasource,
      gridPos,
      fieldConfig: { defaults: { unit }, overrides: [] },
      targets: queries.map(([expr, legendFormat], at) => ({
        refId: String.fromCharCode(65 + at),
        expr,
        legendFormat,
        datasource,
      })),
    };
  });
  const variable = (name: string, more: object) => ({ name, ...more });
  return {
    title: "Holdfast",
    uid: "holdfast",
    schemaVersion: 39,
    version: 1,
    refresh: "1m",
    time: { from: "now-24h", to: "now" },
    templating: {
      list: [
        variable("datasource", { type: "datasource", query: "prometheus" }),
        variable("node", {
          type: "query",
          datasource,
          query: { query: "label_values(holdfast_upstream_up, instance)", refId: "A" },
          includeAll: true,
          multi: true,
          refresh: 2,
        }),
      ],
    },
    panels,
  };
}

if (import.meta.main) console.log(JSON.stringify(dashboard(), undefined, 1));
