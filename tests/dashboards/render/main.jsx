// Draws a dashboard's JSON: its panels where the JSON puts them, by Grafana's own components, with a live Prometheus' data.
// What @grafana/ui has no component for (state timelines, heatmaps) is drawn as bands of boxes in the colours and words
// that @grafana/data makes of the panel's field options.
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import {
  applyFieldOverrides,
  createTheme,
  dateTime,
  EventBusSrv,
  FieldConfigOptionsRegistry,
  FieldType,
  getDisplayProcessor,
  getFieldDisplayName,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  ThemeContext,
  transformDataFrame,
} from '@grafana/data';
import { BigValue, GlobalStyles, PanelChrome, PanelContextProvider, Table, TimeSeries } from '@grafana/ui';

import { framesOf, query } from './prometheus.js';

const { dashboard, prometheus, variables, start, end, step, width, mode } = window.RENDER;
const theme = createTheme({ colors: { mode } });
const range = { from: dateTime(start * 1000), to: dateTime(end * 1000), raw: { from: dateTime(start * 1000), to: dateTime(end * 1000) } };

const STANDARD = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'color', 'thresholds', 'mappings', 'links'];
const CUSTOM = [
  'drawStyle', 'lineWidth', 'fillOpacity', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle', 'scaleDistribution',
  'align', 'cellOptions', 'filterable',
];

function option(path, isCustom) {
  return {
    id: isCustom ? `custom.${path}` : path, path, name: path, isCustom,
    process: (value) => value, shouldApply: () => true, override: () => null, editor: () => null,
  };
}
const options = [...STANDARD.map((path) => option(path, false)), ...CUSTOM.map((path) => option(path, true))];
// Without these, units are lost.
standardFieldConfigEditorRegistry.setInit(() => options.filter(({ isCustom }) => !isCustom));
// Some have two names there, and one ID.
const transformers = new Map(Object.values(standardTransformers).map((info) => [info.id, info]));
standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((info) => ({ ...info, transformation: () => Promise.resolve(info), editor: () => null }))
);
const eventBus = new EventBusSrv();
const registry = new FieldConfigOptionsRegistry(() => options);

async function dataOf(panel) {
  const answers = await Promise.all(panel.targets.map((target) => query(prometheus, target, variables, { start, end, step })));
  let frames = panel.targets.flatMap((target, index) => framesOf(target, answers[index], panel.targets.length > 1));
  if (panel.transformations?.length) {
    frames = await lastValueFrom(transformDataFrame(panel.transformations, frames));
  }
  return applyFieldOverrides({
    data: frames, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry, theme, timeZone: 'utc', replaceVariables: (text) => text,
  });
}

function Nothing({ panel }) {
  return <div className="nothing">{panel.fieldConfig.defaults.noValue}</div>;
}

function Stat({ panel, frames, width, height }) {
  const fields = frames.flatMap((frame) => frame.fields.filter((field) => field.type === FieldType.number).map((field) => ({ field, frame })));
  const shown = fields.length || 1;
  return (
    <div style={{ display: 'flex' }}>
      {(fields.length ? fields : [{}]).map(({ field, frame }, index) => {
        const value = field ? field.values[field.values.length - 1] : null;
        const display = field ? { ...field.display(value) } : getDisplayProcessor({ field: { type: FieldType.number, config: panel.fieldConfig.defaults }, theme })(null);
        if (field) {
          display.title = getFieldDisplayName(field, frame, frames);
        }
        const { textMode, colorMode, graphMode, justifyMode } = panel.options;
        return <BigValue key={index} value={display} theme={theme} width={width / shown} height={height} colorMode={colorMode} graphMode={graphMode} justifyMode={justifyMode} textMode={fields.length ? textMode : 'value'} />;
      })}
    </div>
  );
}

function Lines({ panel, frames, width, height }) {
  if (!frames.length) {
    return <Nothing panel={panel} />;
  }
  return (
    <PanelContextProvider value={{ eventsScope: 'global', eventBus }}>
      <TimeSeries frames={frames} width={width} height={height} timeRange={range} timeZone="utc" legend={panel.options.legend} options={panel.options} structureRev={1} />
    </PanelContextProvider>
  );
}

function Rows({ panel, frames, width, height }) {
  const frame = frames[0];
  if (!frame?.length) {
    return <Nothing panel={panel} />;
  }
  return <Table data={frame} width={width} height={height} cellHeight={panel.options.cellHeight} initialSortBy={panel.options.sortBy} timeRange={range} />;
}

function Timeline({ panel, frames, height }) {
  if (!frames.length) {
    return <Nothing panel={panel} />;
  }
  const tall = Math.max(12, Math.min(30, (height - 22) / frames.length - 4));
  return (
    <div className="timeline">
      {frames.map((frame, row) => {
        const [time, field] = frame.fields;
        const pieces = [];
        time.values.forEach((at, index) => {
          const shown = field.display(field.values[index]);
          const last = pieces[pieces.length - 1];
          if (last && last.text === shown.text && at - last.to <= step * 1500) {
            last.to = at;
          } else {
            pieces.push({ from: at, to: at, text: shown.text, color: shown.color });
          }
        });
        const place = (at) => ((at / 1000 - start) / (end - start)) * 100;
        return (
          <div className="row" key={row} style={{ height: tall, marginBottom: 4 }}>
            <span className="name">{getFieldDisplayName(field, frame, frames)}</span>
            <span className="band">
              {pieces.map((piece, index) => (
                <span key={index} className="piece" title={piece.text} style={{ left: `${place(piece.from)}%`, width: `${place(piece.to + step * 1000) - place(piece.from)}%`, background: piece.color, lineHeight: `${tall}px` }}>
                  {piece.text}
                </span>
              ))}
            </span>
          </div>
        );
      })}
    </div>
  );
}

function Heat({ panel, frames, height }) {
  const bands = frames
    .map((frame) => ({ edge: Number(frame.fields[1].labels.le), values: frame.fields[1].values, times: frame.fields[0].values }))
    .sort((a, b) => a.edge - b.edge);
  if (!bands.length) {
    return <Nothing panel={panel} />;
  }
  const counts = bands.map((band, row) => band.values.map((value, at) => value - (row ? bands[row - 1].values[at] : 0)));
  const filled = counts.map((row, index) => ({ row, index })).filter(({ row }) => row.some((count) => count > 0.01));
  const most = Math.max(...filled.flatMap(({ row }) => row));
  const [low, high] = [filled[0].index, filled[filled.length - 1].index];
  const unit = getDisplayProcessor({ field: { type: FieldType.number, config: { unit: panel.fieldConfig.defaults.unit } }, theme });
  const text = (edge) => { const shown = unit(edge); return `${shown.text}${shown.suffix ?? ''}`; };
  const tall = (height - 10) / (high - low + 1);
  return (
    <div className="timeline">
      {counts.slice(low, high + 1).map((row, index) => (
        <div className="row" key={index} style={{ height: tall, order: -index }}>
          <span className="name">{text(bands[low + index].edge)}</span>
          <span className="band" style={{ display: 'flex' }}>
            {row.map((count, at) => <span key={at} style={{ flex: 1, background: `rgba(255,140,30,${Math.max(0, count / most)})` }} />)}
          </span>
        </div>
      ))}
    </div>
  );
}

const KINDS = { stat: Stat, timeseries: Lines, table: Rows, 'state-timeline': Timeline, heatmap: Heat };

function Panel({ panel, frames }) {
  const unit = width / 24;
  const { x, y, w, h } = panel.gridPos;
  const box = { position: 'absolute', left: x * unit + 4, top: y * 38, width: w * unit - 8, height: h * 38 - 8 };
  if (panel.type === 'row') {
    return <h2 style={box}>{panel.title}</h2>;
  }
  const Kind = KINDS[panel.type];
  return (
    <div style={box} data-panel={panel.id}>
      <PanelChrome title={panel.title} width={box.width} height={box.height} padding="sm">
        {(innerWidth, innerHeight) => <Kind panel={panel} frames={frames} width={innerWidth} height={innerHeight} />}
      </PanelChrome>
    </div>
  );
}

const panels = await Promise.all(
  dashboard.panels.map(async (panel) => ({ panel, frames: panel.type === 'row' ? [] : await dataOf(panel) }))
);
const lowest = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
const colors = theme.colors;
document.head.insertAdjacentHTML('beforeend', `<style>
  body { margin: 0; background: ${colors.background.canvas}; color: ${colors.text.primary}; font-family: Liberation Sans, sans-serif; }
  h2 { font-size: 18px; margin: 0; padding-top: 8px; }
  .nothing { color: ${colors.text.secondary}; display: flex; height: 100%; align-items: center; justify-content: center; font-size: 15px; }
  .timeline { display: flex; flex-direction: column; height: 100%; overflow: hidden; }
  .timeline .row { display: flex; flex: none; }
  .timeline .name { width: 190px; flex: none; text-align: right; padding-right: 8px; font-size: 11px; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
  .timeline .band { position: relative; flex: 1; }
  .timeline .piece { position: absolute; top: 0; bottom: 0; overflow: hidden; font-size: 10px; color: #000c; padding-left: 3px; box-sizing: border-box; white-space: nowrap; }
</style>`);
createRoot(document.getElementById('dashboard')).render(
  <ThemeContext.Provider value={theme}>
    <GlobalStyles />
    <div style={{ position: 'relative', width, height: lowest * 38 }}>
      {panels.map(({ panel, frames }) => <Panel key={panel.id} panel={panel} frames={frames} />)}
    </div>
  </ThemeContext.Provider>
);
// Two turns of the screen, so that what is measured before it is drawn is drawn.
requestAnimationFrame(() => setTimeout(() => (window.DRAWN = panels.filter(({ panel }) => panel.type !== 'row').map(({ panel, frames }) => [panel.id, frames.length])), 1500));
