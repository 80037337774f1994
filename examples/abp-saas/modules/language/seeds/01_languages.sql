-- For the host and for each tenant, who then decides what its users may choose: is_enabled is not updated.
insert into languages (tenant_id, culture_name, ui_culture_name, display_name, flag_icon)
select nullif(:'tenant', ''), culture_name, culture_name, display_name, flag_icon
from (values
    ('en', 'English', 'gb'),
    ('ar', 'العربية', 'sa'),
    ('cs', 'Čeština', 'cz'),
    ('de', 'Deutsch', 'de'),
    ('es', 'Español', 'es'),
    ('fr', 'Français', 'fr'),
    ('hi', 'हिन्दी', 'in'),
    ('hu', 'Magyar', 'hu'),
    ('it', 'Italiano', 'it'),
    ('pt-BR', 'Português (Brasil)', 'br'),
    ('ru', 'Русский', 'ru'),
    ('sk', 'Slovenčina', 'sk'),
    ('tr', 'Türkçe', 'tr'),
    ('zh-Hans', '简体中文', 'cn'),
    ('zh-Hant', '繁體中文', 'tw')
) as known (culture_name, display_name, flag_icon)
on conflict (tenant_id, culture_name) do update
    set display_name = excluded.display_name, flag_icon = excluded.flag_icon
    where (languages.display_name, languages.flag_icon) is distinct from (excluded.display_name, excluded.flag_icon);
