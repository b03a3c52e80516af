insert into lab_order (id, patient_id, test, ordered_at)
select
    md5('lab-order-' || n)::uuid,
    md5('patient-' || 1 + n % 40)::uuid,
    (array['HbA1c', 'complete blood count', 'lipid panel', 'TSH'])[1 + n % 4],
    timestamptz '2026-01-06 07:30Z' + n * interval '13 hours'
from generate_series(1, 48) n
on conflict do nothing;

-- Every third order still waits for its result.
insert into lab_result (order_id, value, reported_at)
select id, 'within range', ordered_at + interval '6 hours'
from lab_order
where id in (select md5('lab-order-' || n)::uuid from generate_series(1, 48) n where n % 3 > 0)
on conflict do nothing;
