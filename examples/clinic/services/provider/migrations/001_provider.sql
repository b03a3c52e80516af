create table if not exists provider (
    id uuid primary key default gen_random_uuid(),
    name text not null check (name <> ''),
    specialty text not null,
    created_at timestamptz not null default now()
);
