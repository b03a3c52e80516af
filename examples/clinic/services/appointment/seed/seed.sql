insert into appointment (id, patient_id, provider_id, starts_at, reason, status)
select
    md5('appointment-' || n)::uuid,
    md5('patient-' || 1 + n % 40)::uuid,
    md5('provider-' || 1 + n % 24)::uuid,
    timestamptz '2026-01-05 08:00Z' + n * interval '11 hours',
    (array['check-up', 'follow-up', 'vaccination', 'acute complaint'])[1 + n % 4],
    (array['done', 'done', 'cancelled'])[1 + n % 3]
from generate_series(1, 60) n
on conflict do nothing;
