create table if not exists lab_result (
    order_id uuid primary key references lab_order on delete cascade,
    value text not null,
    reported_at timestamptz not null default now()
);
