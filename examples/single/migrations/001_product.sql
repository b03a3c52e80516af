create table if not exists product (
    id bigint primary key generated always as identity,
    name text not null unique,
    price_cents bigint not null check (price_cents >= 0)
);
