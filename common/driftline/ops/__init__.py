"""Operations on whole tables: how they are asked for, and which tables they have made."""
