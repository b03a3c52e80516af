insert into invoice (id, patient_id, amount_cents, purpose, issued_at, paid_at)
select
    md5('invoice-' || n)::uuid,
    md5('patient-' || 1 + n % 40)::uuid,
    1500 + n * 775,
    (array['consultation', 'laboratory', 'vaccination'])[1 + n % 3],
    timestamptz '2026-01-08 12:00Z' + n * interval '10 hours',
    case when n % 4 > 0 then timestamptz '2026-01-22 12:00Z' + n * interval '10 hours' end
from generate_series(1, 54) n
on conflict do nothing;
