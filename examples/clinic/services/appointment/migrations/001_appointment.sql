-- Patients and providers live in other databases, so their ids have no foreign key here.
create table if not exists appointment (
    id uuid primary key default gen_random_uuid(),
    patient_id uuid not null,
    provider_id uuid not null,
    starts_at timestamptz not null,
    reason text not null,
    unique (provider_id, starts_at)
);

create index if not exists appointment_by_patient on appointment (patient_id, starts_at);
