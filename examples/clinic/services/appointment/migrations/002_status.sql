alter table appointment add column if not exists status text not null default 'booked'
    check (status in ('booked', 'cancelled', 'done'));
