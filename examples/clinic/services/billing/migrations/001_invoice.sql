create table if not exists invoice (
    id uuid primary key default gen_random_uuid(),
    patient_id uuid not null,
    amount_cents bigint not null check (amount_cents > 0),
    purpose text not null,
    issued_at timestamptz not null default now()
);

create index if not exists invoice_newest on invoice (issued_at desc, id);
