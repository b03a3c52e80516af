insert into prescription (id, patient_id, drug, dose, refills, prescribed_at)
select
    md5('prescription-' || n)::uuid,
    md5('patient-' || 1 + n % 40)::uuid,
    (array['metformin', 'lisinopril', 'atorvastatin', 'levothyroxine', 'amoxicillin'])[1 + n % 5],
    (array['500 mg twice a day', '10 mg a day', '20 mg at night'])[1 + n % 3],
    n % 4,
    timestamptz '2026-01-07 10:00Z' + n * interval '9 hours'
from generate_series(1, 50) n
on conflict do nothing;
