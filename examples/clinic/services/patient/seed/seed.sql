-- The ids follow from the number, so the other services' seeds can refer to these patients.
insert into patient (id, name, birth_date, phone)
select
    md5('patient-' || n)::uuid,
    (array['Ada', 'Grace', 'Edsger', 'Barbara', 'Alan', 'Frances'])[1 + n % 6] || ' '
        || (array['Novak', 'Okafor', 'Lindqvist', 'Moreau', 'Tanaka', 'Silva', 'Haddad'])[1 + n % 7],
    date '1940-01-01' + n * 577,
    '+1 555 01' || to_char(n, 'FM00')
from generate_series(1, 40) n
on conflict do nothing;
