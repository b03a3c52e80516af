create table if not exists prescription (
    id uuid primary key default gen_random_uuid(),
    patient_id uuid not null,
    drug text not null,
    dose text not null,
    prescribed_at timestamptz not null default now()
);

create index if not exists prescription_by_patient on prescription (patient_id, prescribed_at);
