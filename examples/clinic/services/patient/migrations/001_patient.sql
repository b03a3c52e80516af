create table if not exists patient (
    id uuid primary key default gen_random_uuid(),
    name text not null check (name <> ''),
    birth_date date not null,
    created_at timestamptz not null default now()
);
