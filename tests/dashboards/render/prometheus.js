// Prometheus' answers as Grafana's data frames.
import { FieldType, toDataFrame } from '@grafana/data';

function expression(text, variables) {
  for (const [name, value] of Object.entries(variables)) {
    text = text.replaceAll(`$${name}`, value);
  }
  return text;
}

export async function query(prometheus, target, variables, { start, end, step }) {
  const path = target.instant ? 'query' : 'query_range';
  const when = target.instant ? { time: end } : { start, end, step };
  const answer = await fetch(`${prometheus}/api/v1/${path}`, {
    method: 'POST', body: new URLSearchParams({ query: expression(target.expr, variables), ...when }),
  });
  const { data, error } = await answer.json();
  if (error) {
    throw new Error(`${error}: ${target.expr}`);
  }
  return data.result.map(({ metric, value, values }) => ({ labels: metric, samples: values ?? [value] }));
}

function legend(format, labels) {
  const text = format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');
  return text || JSON.stringify(labels);
}

export function framesOf(target, series, several) {
  return target.format === 'table' ? table(target, series, several) : series.map((one) => line(target, one));
}

function line(target, { labels, samples }) {
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: samples.map(([at]) => at * 1000), config: {} },
      {
        name: 'Value', type: FieldType.number, labels, values: samples.map(([, value]) => Number(value)),
        config: { displayNameFromDS: legend(target.legendFormat, labels) },
      },
    ],
  });
}

function table(target, series, several) {
  const names = [...new Set(series.flatMap(({ labels }) => Object.keys(labels)))].sort();
  return [toDataFrame({
    refId: target.refId,
    fields: [
      { name: 'Time', type: FieldType.time, values: series.map(({ samples }) => samples[0][0] * 1000), config: {} },
      ...names.map((name) => ({ name, type: FieldType.string, values: series.map(({ labels }) => labels[name] ?? ''), config: {} })),
      { name: several ? `Value #${target.refId}` : 'Value', type: FieldType.number, values: series.map(({ samples }) => Number(samples[0][1])), config: {} },
    ],
  })];
}
