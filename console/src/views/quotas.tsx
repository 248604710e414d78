import { count } from "../state/format";
import { chooseQuotas, limited, quotaModel, quotaOutcome, saveQuotas } from "../state/limiting";
import type { Usage } from "../state/quotas";
import { asConfig, usageOf } from "../state/quotas";
import { fieldsOf } from "../state/routing-form";
import { status } from "../state/signals";
import { ConfigForm } from "./config-form";

// What a model may be used for, and how much of that is used.
export function Quotas() {
  const { value, problem } = limited.value;
  const model = quotaModel.value;
  const models = (status.value?.mesh_models ?? []).map(({ id }) => id);
  return (
    <section class="quotas" aria-label="Quotas">
      <label class="picker">
        <span>Quotas of</span>
        <select value={model} onChange={(event) => void chooseQuotas(event.currentTarget.value)}>
          <option value="">no model</option>
          {models.map((id) => (
            <option key={id}>{id}</option>
          ))}
        </select>
      </label>
      {problem && (
        <p class="notice" role="alert">
          {problem}
        </p>
      )}
      {value && (
        <ConfigForm
          key={JSON.stringify(value.document)}
          title={`What ${model} may be used for`}
          label="Limits"
          fields={fieldsOf(asConfig(value.document))}
          outcome={quotaOutcome.value}
          onSave={(texts) => void saveQuotas(texts)}
          onReload={() => void chooseQuotas(model)}
        >
          <p class="quiet-line">
            For the whole mesh, version {value.document.version}. 0 is no limit. Now: {value.report.mode}.
          </p>
          {usageOf(value.report).map((usage) => (
            <Used key={usage.name} usage={usage} />
          ))}
        </ConfigForm>
      )}
    </section>
  );
}

function Used({ usage: { name, used, limit, words, isBinding } }: { usage: Usage }) {
  return (
    <div class="meter">
      <span>{name}</span>
      <meter min={0} max={limit} high={limit * 0.85} value={used} aria-label={name} />
      <span class="amount">
        {count(used)} of {count(limit)} {words}
      </span>
      {isBinding && <span class="tag">binds</span>}
    </div>
  );
}
