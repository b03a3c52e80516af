alter table prescription add column if not exists refills integer not null default 0
    check (refills between 0 and 12);
