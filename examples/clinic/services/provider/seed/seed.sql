insert into provider (id, name, specialty, accepts_new_patients)
select
    md5('provider-' || n)::uuid,
    'Dr. ' || (array['Abebe', 'Bianchi', 'Castro', 'Dvorak', 'Eriksen', 'Fischer'])[1 + (n - 1) % 6]
        || ' ' || chr(64 + n),
    (array['cardiology', 'dermatology', 'general practice', 'paediatrics'])[1 + n % 4],
    n % 5 <> 0
from generate_series(1, 24) n
on conflict do nothing;
