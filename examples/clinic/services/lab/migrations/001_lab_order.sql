create table if not exists lab_order (
    id uuid primary key default gen_random_uuid(),
    patient_id uuid not null,
    test text not null,
    ordered_at timestamptz not null default now()
);

create index if not exists lab_order_newest on lab_order (ordered_at desc, id);
